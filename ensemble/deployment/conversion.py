"""Write the released model in other formats, each checked against its ONNX file.

Axes: N images, K classes. A converter is an optional package; a format is offered only if its
result can be run here, so that it can be compared with the ONNX file.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from common.errors import RunError, SpecError
from common.files import write_bytes_atomically
from ensemble.deployment.onnx_model import Images, LogProbs, OnnxClassifier

Format = Literal["onnx", "openvino"]
FORMATS: tuple[Format, ...] = get_args(Format)

TOLERANCE = 1e-3
"""Largest accepted difference of a log-probability from the ONNX file's, in nats. OpenVINO 2026.4
differs by 1e-5 on the digits student, fp32 and int8."""

EARLY_IR_VERSION = 9
"""ONNX IR version that is set in files of early versions (opset 20), for older runtimes."""

PARITY_IMAGES = 64
"""Number of random images that files are compared on if none are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A converted model."""

    files: tuple[Path, ...]
    """The file to load comes first."""
    max_difference: float
    """Largest difference of a log-probability from the ONNX file's, in nats."""
    images: int
    """Number of images that the files were compared on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converter:
    """The functions that write and run one format."""

    suffix: str
    convert: Callable[[OnnxClassifier, Path], tuple[Path, ...]]
    """Writes the model to a path and returns all files."""
    predict: Callable[[Path, Images], LogProbs]


def convert_model(
    classifier: OnnxClassifier, target: Path, *, format: Format, images: Images | None = None
) -> Exported:
    """Write a model in another format and compare its predictions on `images`, uint8 [N, S, S, 3].

    Nothing is written if they differ by more than TOLERANCE. In a folder, the file is called
    `model` with the format's suffix.

    Raises:
        SpecError: an unknown format, or a name with another suffix.
        RunError: the converter is not installed, the target exists, or the predictions differ.
    """
    if format not in CONVERTERS:
        raise SpecError(f"--format {format!r}: choose one of {', '.join(FORMATS)}")
    converter = CONVERTERS[format]
    if target.is_dir():
        target = target / f"model{converter.suffix}"
    if target.suffix != converter.suffix:
        raise SpecError(f"-o {target}: the name of an {format} file ends in {converter.suffix}")
    if target.exists():
        raise RunError(f"{target} exists; give -o another name")
    if images is None or not len(images):
        images = random_images(classifier.input_size)
    with tempfile.TemporaryDirectory() as folder:
        made = converter.convert(classifier, Path(folder) / target.name)
        difference = np.abs(converter.predict(made[0], images) - classifier.log_probs(images)).max()
        if not difference <= TOLERANCE:
            raise RunError(
                f"the {format} file differs from {classifier.path.name} by {difference:.2g} nats "
                f"on {len(images)} images, more than {TOLERANCE:g}; nothing was written"
            )
        files = tuple(target.with_name(path.name) for path in made)
        for file in files:
            if file.exists():
                raise RunError(f"{file} exists; give -o another name")
        # The file to load is written last, when the others are complete.
        for file, path in reversed([*zip(files, made, strict=True)]):
            write_bytes_atomically(file, path.read_bytes())
    return Exported(files=files, max_difference=float(difference), images=len(images))


def random_images(size: int) -> Images:
    """Return uint8 images [N, S, S, 3] of noise and of plain colours, always the same."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (PARITY_IMAGES // 2, size, size, 3), dtype=np.uint8)
    colours = rng.integers(0, 256, (PARITY_IMAGES // 2, 1, 1, 3), dtype=np.uint8)
    return np.concatenate([noise, np.broadcast_to(colours, noise.shape)])


def _copy(classifier: OnnxClassifier, path: Path) -> tuple[Path, ...]:
    """Copy the file, and complete files of early versions.

    They lack the description, which is taken from card.json, and need a file format that older
    runtimes can read.
    """
    content = classifier.path.read_bytes()
    if classifier.metadata is None:
        content = _described(content, classifier.describe().to_props())
    path.write_bytes(content)
    return (path,)


def _described(content: bytes, props: Mapping[str, str]) -> bytes:
    import onnx

    model = onnx.load_from_string(content)
    used = {node.domain for node in model.graph.node}
    opsets = [item for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    model.ir_version = min(model.ir_version, EARLY_IR_VERSION)
    onnx.helper.set_model_props(model, dict(props))
    return bytes(model.SerializeToString())


def _run_onnx(path: Path, images: Images) -> LogProbs:
    return OnnxClassifier(path).log_probs(images)


def _to_openvino(classifier: OnnxClassifier, path: Path) -> tuple[Path, ...]:
    try:
        import openvino
    except ImportError:
        raise RunError(
            "--format openvino needs the package openvino: pip install -e '.[openvino]' in the "
            "checkout of Quorum"
        ) from None
    model = openvino.convert_model(classifier.path)
    for key, value in _ascii(classifier.describe().to_props()).items():
        model.set_rt_info(value, ["quorum", key])
    openvino.save_model(model, path, compress_to_fp16=False)
    return path, path.with_suffix(".bin")


def _run_openvino(path: Path, images: Images) -> LogProbs:
    import openvino

    # OpenVINO may otherwise compute in bfloat16.
    precision = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", precision)
    return np.asarray(compiled({"images": images})[0])


def _ascii(props: Mapping[str, str]) -> dict[str, str]:
    """Escape what an XML file cannot hold."""
    return {
        key: value if value.isprintable() and value.isascii() else _escaped(value)
        for key, value in props.items()
    }


def _escaped(value: str) -> str:
    try:
        return json.dumps(json.loads(value))
    except ValueError:
        return json.dumps(value)[1:-1]


CONVERTERS: Mapping[str, Converter] = {
    "onnx": Converter(suffix=".onnx", convert=_copy, predict=_run_onnx),
    "openvino": Converter(suffix=".xml", convert=_to_openvino, predict=_run_openvino),
}
"""The functions of every format."""
