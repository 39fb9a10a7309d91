"""Gates of attention, measured in a trained net of ours.

Axes: N images, K classes, B images of a batch, G values of a gate. Two questions. How do
the gates vary over images and classes? And what do the answers owe to that: a gate that is
the same for every image is a constant, which for a channel the next layer could hold itself;
so the net answers once as trained, and once with every gate held at its mean over val.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.explain.attention import AttentionFacts, GateFacts, describe_gate
from analysis.explain.examples import reason
from analysis.facts.data_facts import Pictured
from common.statistics.intervals import paired_difference
from trainables.nets.build import Classifier
from trainables.nets.convnet import ConvBlock, ConvNet
from trainables.prediction import evenly_spaced, load_trained, predict_log_probs
from trainables.recipe import Numerics
from trainables.records import RunFolder

Array = np.ndarray[Any, Any]

MOST_IMAGES = 1000
"""Images of val, and of holdout: with the second look at these, 3,000 passes at most."""


def attention_of(
    folder: RunFolder,
    found: Pictured,
    *,
    trial: str,
    kind: str,
    rng: np.random.Generator,
    shown: Array | None = None,
) -> tuple[AttentionFacts | None, str]:
    """`measure_attention` of a trial's net, or why there is nothing to tell."""
    # As for maps: whatever becomes of an explanation, the report goes on.
    try:
        model = load_trained(folder.trial(trial))
        return measure_attention(model, found, trial=trial, kind=kind, rng=rng, shown=shown), ""
    except Exception as error:
        return None, reason(error, folder)


def measure_attention(
    model: Classifier,
    found: Pictured,
    *,
    trial: str,
    kind: str,
    rng: np.random.Generator,
    shown: Array | None = None,
) -> AttentionFacts:
    """The gates of a convnet with attention, and what its answers owe to their variation.

    The net looks once at an image: its `tta` is switched off. `shown` are images, uint8
    [n, S, S, 3], for which spatial gates are kept.

    Raises:
        ValueError: the net has no gates.
    """
    model.tta = "none"
    images, labels = found.images.images, found.images.labels
    val, holdout = (_some(part) for part in (found.splits.val, found.splits.holdout))
    modules = gates_of(model)
    if not modules:
        raise ValueError("the net has no gates")
    values = _values(model, modules, images, val)
    own = predict_log_probs(model, images, Numerics(), indices=holdout).argmax(axis=1)
    means = {name: torch.from_numpy(each.mean(axis=0)) for name, each in values.items()}
    with _held(modules, means):
        held = predict_log_probs(model, images, Numerics(), indices=holdout).argmax(axis=1)
    truth = labels[holdout]
    facts = [_described(name, each, labels[val], model.classes) for name, each in values.items()]
    if shown is not None and any(gate.side for gate in facts):
        facts = _with_shown(facts, _values(model, modules, shown, np.arange(len(shown))))
    return AttentionFacts(
        trial=trial,
        kind=kind,
        images=len(val),
        gates=tuple(facts),
        holdout=len(holdout),
        changed=int((own != held).sum()),
        loss=paired_difference(
            (held == truth).astype(float), (own == truth).astype(float), rng=rng
        ),
        pixels=shown if any(gate.side for gate in facts) else None,
    )


def gates_of(model: Classifier) -> dict[str, nn.Module]:
    """The modules of a convnet whose outputs are gates, by a name for people.

    All attention that the recipe knows multiplies its map with the output of a module
    called `gate`: CBAM's first for channels, then for places.
    """
    if not isinstance(model.net, ConvNet):
        return {}
    found: dict[str, nn.Module] = {}
    for number, block in enumerate(model.net.blocks, 1):
        assert isinstance(block, ConvBlock)
        for path, module in block.attention.named_modules():
            *parents, name = path.split(".")
            if name == "gate":
                what = {"channel": ", channels", "spatial": ", places"}
                found[f"block {number}" + "".join(what.get(p, "") for p in parents)] = module
    return found


def _some(indices: Array) -> Array:
    """At most MOST_IMAGES of them, evenly spaced."""
    chosen: Array = indices[evenly_spaced(len(indices), MOST_IMAGES).numpy()]
    return chosen


def _values(
    model: Classifier, modules: Mapping[str, nn.Module], images: Array, indices: Array
) -> dict[str, Array]:
    """What each gate puts out for the images at `indices`, [N, …] as the gate has it."""
    parts: dict[str, list[Array]] = {name: [] for name in modules}

    def keeper(name: str) -> Any:
        def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            parts[name].append(output.cpu().numpy().copy())

        return keep

    handles = [module.register_forward_hook(keeper(name)) for name, module in modules.items()]
    try:
        predict_log_probs(model, images, Numerics(), indices=indices)
    finally:
        for handle in handles:
            handle.remove()
    return {name: np.concatenate(each) for name, each in parts.items()}


@contextmanager
def _held(modules: Mapping[str, nn.Module], means: Mapping[str, Tensor]) -> Iterator[None]:
    """Within it, each gate puts out its mean [1, …], whatever the image."""

    def holder(mean: Tensor) -> Any:
        return lambda _module, _inputs, output: mean.to(output).expand_as(output)

    handles = [
        module.register_forward_hook(holder(means[name])) for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _described(name: str, values: Array, labels: Array, classes: int) -> GateFacts:
    side = values.shape[-1] if name.endswith("places") else None
    return describe_gate(name, values.reshape(len(values), -1), labels, classes=classes, side=side)


def _with_shown(facts: Sequence[GateFacts], values: Mapping[str, Array]) -> list[GateFacts]:
    """The facts, those of spatial gates with their values for some images."""
    return [replace(gate, shown=values[gate.name][:, 0]) if gate.side else gate for gate in facts]
