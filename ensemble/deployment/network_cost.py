"""Costs of a deployed network: its parameters, arithmetic, file sizes and latencies.

None of it depends on the values of the weights, so it is known before the network is trained.
Axes: N images of S×S pixels.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from common.errors import RunError
from common.formats import compact, file_size
from ensemble.deployment.export import export_onnx
from ensemble.deployment.gates import GateMargins, budgets
from ensemble.deployment.latency import paired_latency
from ensemble.deployment.onnx_model import Images, OnnxClassifier
from ensemble.deployment.quantize import quantize_int8
from ensemble.ledger.predictions import StageCost
from trainables.nets.build import empty_model
from trainables.nets.classifier import Classifier
from trainables.recipe import Recipe

CALIBRATION_IMAGES = 16
"""Images for the int8 ranges, which change neither size nor speed."""

REPEATS = 20
"""Timed blocks of calls of each file; a release is timed with more."""

RGB = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCost:
    """The costs of a network's two files; those of an unmeasured file are None."""

    fp32: StageCost
    int8: StageCost

    @property
    def shipped(self) -> StageCost:
        """The cost of the file that would ship: int8, unless it is the slower one."""
        fast, slow = self.int8.latency_ms_batch1, self.fp32.latency_ms_batch1
        return self.fp32 if fast is not None and slow is not None and slow < fast else self.int8

    def slower(self, again: "NetworkCost") -> "NetworkCost":
        """Return the cost with the longer latency of two measurements, for each file."""
        return NetworkCost(
            fp32=max(self.fp32, again.fp32, key=_latency),
            int8=max(self.int8, again.int8, key=_latency),
        )

    def over(self, margins: GateMargins, *, headroom: float = 1.0) -> tuple[str, ...]:
        """Return the budgets broken by the file, int8 or fp32, that breaks the fewest.

        Empty if one file stays within all of them, as far as it was measured. A latency must be at
        most `headroom` times the limit.
        """
        broken = [_broken(cost, margins, headroom) for cost in (self.int8, self.fp32)]
        return min(broken, key=len)


UNKNOWN = NetworkCost(fp32=StageCost(), int8=StageCost())
"""The costs of a network that could not be measured."""


def exact_cost(recipe: Recipe, *, classes: int, image_size: int) -> NetworkCost:
    """Return what is known without exporting a network: its parameters and its arithmetic."""
    with torch.device("meta"):
        model = empty_model(recipe, classes=classes, image_size=image_size).eval()
        cost = StageCost(
            params=sum(parameter.numel() for parameter in model.parameters()),
            gflops=_gflops(model, "meta"),
        )
    return NetworkCost(fp32=cost, int8=cost)


def measured_cost(recipe: Recipe, images: Images, *, classes: int) -> NetworkCost:
    """Export an untrained network of this recipe, quantize it, and time both files alternately.

    `images`, uint8 [N, S, S, 3], are used for timing and for the int8 ranges. If a network
    cannot be quantized, its fp32 file stands in for the int8 one, and so do its size and latency.
    """
    model = empty_model(recipe, classes=classes, image_size=images.shape[1]).eval()
    exact = exact_cost(recipe, classes=classes, image_size=images.shape[1]).fp32
    with tempfile.TemporaryDirectory() as folder:
        fp32, int8 = Path(folder) / "model.onnx", Path(folder) / "model.int8.onnx"
        export_onnx(model, fp32, image_size=images.shape[1], classes=classes)
        sample = images[:CALIBRATION_IMAGES]
        try:
            quantize_int8(
                fp32,
                int8,
                calibration=sample,
                holdout=sample,
                labels=np.arange(len(sample)) % classes,
                methods=("MinMax",),
            )
        except RunError:  # the quantizer found nothing to quantize
            int8.write_bytes(fp32.read_bytes())
        timed = paired_latency(OnnxClassifier(fp32), OnnxClassifier(int8), images, repeats=REPEATS)
        return NetworkCost(
            fp32=replace(
                exact,
                bytes=fp32.stat().st_size,
                latency_ms_batch1=timed.first.ms_batch1,
                images_per_second=timed.first.images_per_second,
            ),
            int8=replace(
                exact,
                bytes=int8.stat().st_size,
                latency_ms_batch1=timed.second.ms_batch1,
                images_per_second=timed.second.images_per_second,
            ),
        )


def gflops(model: Classifier) -> float:
    """Return the billions of floating-point operations for one image, two per multiply-add.

    `model` is in eval mode.
    """
    with torch.inference_mode(False), torch.no_grad():
        return _gflops(model, str(next(model.parameters()).device))


def describe(cost: StageCost) -> str:
    """Return a network's cost in words, as far as it is known."""
    parts = {
        "params": (cost.params, lambda value: f"{compact(value)} parameters"),
        "gflops": (cost.gflops, lambda value: f"{value:.3g} GFLOPs"),
        "bytes": (cost.bytes, file_size),
        "latency": (cost.latency_ms_batch1, lambda value: f"{value:.3g} ms"),
    }
    named: list[tuple[float | None, Callable[[float], str]]] = list(parts.values())
    return ", ".join(text(value) for value, text in named if value is not None)


def _latency(cost: StageCost) -> float:
    return cost.latency_ms_batch1 or 0.0


def _broken(cost: StageCost, margins: GateMargins, headroom: float) -> tuple[str, ...]:
    return tuple(
        name
        for name, (value, limit) in budgets(cost, margins).items()
        if value is not None and value > limit * (headroom if name == "latency_ms" else 1.0)
    )


def _gflops(model: Classifier, device: str) -> float:
    images = torch.zeros(1, RGB, model.image_size, model.image_size, device=device)
    with FlopCounterMode(display=False) as counter:
        model(images)
    return float(counter.get_total_flops()) / 1e9
