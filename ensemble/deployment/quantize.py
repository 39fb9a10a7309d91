"""Quantize an exported classifier to int8, and compare the two files' predictions.

Axes: N images, K classes. Both files take `images` uint8 [N, H, W, 3] and return `log_probs`
float32 [N, K]. The scaling of the pixels, the log-softmax and the temperature stay in float32;
convolutions, poolings and matrix products become 8-bit, in the QDQ format: int8 weights,
symmetric per output channel, and uint8 activations. On x86, onnxruntime converts int8
activations to uint8 except where two operators read them; in a residual net with int8
activations it would therefore run half of the convolutions in float32.
"""

import contextlib
import io
import logging
import platform
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.quantize import save_tensors_data

from common.errors import DataError, RunError
from common.files import write_bytes_atomically
from common.provenance import cpu_flags
from common.statistics.metrics import apply_temperature, fit_temperature, nll
from ensemble.deployment.card import Parity, Quantization
from ensemble.deployment.export import (
    add_temperature,
    count_nodes,
    set_temperature,
    strip,
    write_logits_graph,
)
from ensemble.deployment.onnx_model import Images, predict

log = logging.getLogger(__name__)

METHODS = ("MinMax", "Entropy", "Percentile")
"""onnxruntime's methods of choosing activation ranges from calibration images."""

QUANTIZED_OPS = (
    "Conv",
    "Gemm",
    "MatMul",
    "MaxPool",
    "Relu",
    "Clip",
    "Add",
    "GlobalAveragePool",
)
"""Operators that may become int8; all others stay float32.

Clip is ReLU6. As one of these operators it becomes a part of the convolution before it; otherwise
the 8 bits would have to cover the range before the clipping, most of which is cut off.
"""

CALIBRATION_BATCH = 64

VNNI_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
"""x86 instructions that add products of 8-bit numbers in 32 bits."""

X86 = frozenset({"x86_64", "amd64", "i386", "i486", "i586", "i686"})

_CALIBRATOR_OPTIONS: dict[str, dict[str, Any]] = {
    "MinMax": {"symmetric": False},
    "Entropy": {"symmetric": False, "num_bins": 512, "num_quantized_bins": 128},
    "Percentile": {"symmetric": False, "num_bins": 2048, "percentile": 99.99},
}


def refit_temperature(path: Path, images: Images, labels: np.ndarray[Any, Any]) -> float:
    """Fit the file's temperature to `images` and `labels`, write it into the file, return it."""
    return _refit(path, images, labels)[0]


def quantize_int8(
    fp32: Path,
    int8: Path,
    *,
    calibration: Images,
    holdout: Images,
    labels: np.ndarray[Any, Any],
    methods: Sequence[str] = METHODS,
    reduce_range: bool | None = None,
) -> Quantization:
    """Quantize `fp32` into the file `int8` with the calibration method that is best on holdout.

    `calibration` are training images. Each method is scored by its NLL on `holdout` at its own
    best temperature, which stays in the file. Never pass test images. `reduce_range` limits
    weights to 7 bits instead of 8; by default `needs_reduced_range` decides for this machine.

    Raises:
        DataError: no calibration images.
        RunError: the quantizer quantized no operator.
    """
    if not len(calibration):
        raise DataError("quantization needs calibration images, got none")
    if reduce_range is None:
        reduce_range = needs_reduced_range(platform.machine(), cpu_flags())
    scores: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        write_logits_graph(fp32, prepared)
        with _silence():
            quant_pre_process(prepared, prepared, skip_symbolic_shape=True)
        for method in methods:
            candidate = Path(folder) / f"{method}.onnx"
            _quantize(prepared, candidate, calibration, method, reduce_range)
            add_temperature(candidate, 1.0)
            scores[method] = _refit(candidate, holdout, labels)[1]
        best = min(scores, key=scores.__getitem__)
        chosen = Path(folder) / f"{best}.onnx"
        nodes = count_qdq(chosen)
        write_bytes_atomically(int8, chosen.read_bytes())
    return Quantization(method=best, holdout_nll=scores, qdq_nodes=nodes, reduce_range=reduce_range)


def needs_reduced_range(machine: str, flags: Collection[str]) -> bool:
    """Return whether int8 weights must keep to 7 bits on this kind of processor.

    x86 without VNNI adds two products of uint8 and int8 in 16 bits, which saturates for
    weights beyond 64 (onnxruntime's documentation of `reduce_range`). VNNI and ARM sum in
    32 bits, so their weights use all 8. An unknown architecture gets 7 bits, which are safe
    everywhere.

    Args:
        machine: the architecture as `platform.machine()` names it.
        flags: the processor's feature flags as Linux names them.
    """
    architecture = machine.lower()
    if architecture in X86:
        return not VNNI_FLAGS & set(flags)
    if architecture.startswith(("arm", "aarch64")):
        return False
    log.warning(
        "int8 weights use 7 bits instead of 8, because it is unknown whether the architecture %r "
        "adds 8-bit products without overflow",
        machine,
    )
    return True


def count_qdq(path: Path) -> int:
    """Return the number of QuantizeLinear and DequantizeLinear nodes in a file.

    Raises:
        RunError: there are none; the quantizer found nothing to quantize and did not say so.
    """
    count = count_nodes(path, "QuantizeLinear", "DequantizeLinear")
    if not count:
        raise RunError(
            f"{path.name} has no quantized node: it has no {', '.join(QUANTIZED_OPS)} with "
            "constant weights; ship fp32"
        )
    return count


def parity(fp32: Path, int8: Path, images: Images) -> Parity:
    """Return the difference between two exported files' predictions on the same images."""
    a, b = predict(fp32, images), predict(int8, images)
    return Parity(
        max_abs=float(np.abs(a - b).max()),
        mean_abs=float(np.abs(a - b).mean()),
        agreement=float((a.argmax(1) == b.argmax(1)).mean()),
        images=len(images),
    )


class _Batch(CalibrationDataReader):  # type: ignore[misc]
    """A calibration reader of a single batch."""

    def __init__(self, images: Images) -> None:
        self._batches = iter([{"images": images}])

    def get_next(self) -> dict[str, Images] | None:
        return next(self._batches, None)


def _quantize(
    prepared: Path, target: Path, images: Images, method: str, reduce_range: bool
) -> None:
    with _silence(), tempfile.TemporaryDirectory() as folder:
        ranges = Path(folder) / "ranges.json"
        _calibrate(prepared, ranges, images, method)
        quantize_static(
            prepared,
            target,
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=reduce_range,
            calibrate_method=CalibrationMethod[method],
            calibration_cache_path=ranges,
            op_types_to_quantize=list(QUANTIZED_OPS),
            # Logits in 8 bits would coarsen every probability.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )
    strip(target)


def _calibrate(prepared: Path, ranges: Path, images: Images, method: str) -> None:
    """Write the range of every activation over `images`, batch by batch.

    `quantize_static` could calibrate by itself, but it keeps all activations of all images in
    memory and its options cannot be changed: Entropy with 128 bins for 128 codes has only one
    candidate and repeats MinMax, and Percentile's symmetric ranges waste the half of the codes
    below a ReLU's zero.
    """
    calibrator = create_calibrator(
        prepared,
        list(QUANTIZED_OPS),
        augmented_model_path=str(ranges.with_name("augmented.onnx")),
        calibrate_method=CalibrationMethod[method],
        extra_options=_CALIBRATOR_OPTIONS[method],
    )
    for start in range(0, len(images), CALIBRATION_BATCH):
        calibrator.collect_data(_Batch(images[start : start + CALIBRATION_BATCH]))
    save_tensors_data(calibrator.compute_data(), ranges)


def _refit(path: Path, images: Images, labels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Fit the temperature, write it into the file, and return it with its NLL."""
    set_temperature(path, 1.0)
    log_probs = predict(path, images)
    temperature = fit_temperature(log_probs, labels)
    set_temperature(path, temperature)
    return temperature, float(nll(apply_temperature(log_probs, temperature), labels))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Swallow the progress that the quantizer prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
