"""An exported classifier against a closed form, and on image files.

The model under test is written by hand, so nothing here needs torch.
"""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.special import log_softmax

from common.errors import DataError, RunError
from ensemble.deployment.card import write_card
from ensemble.deployment.onnx_model import OnnxClassifier, classify
from tests.docs import ROOT
from tests.ensemble.deployment.test_card import card
from trainables.data.grey_levels import GreyLevels
from trainables.data.pixels import resize_image

Array = np.ndarray[Any, Any]
SIZE, CLASSES = 4, 2
WEIGHTS = np.random.default_rng(0).normal(size=(SIZE * SIZE * 3, CLASSES)).astype(np.float32)


def write_linear(
    path: Path,
    *,
    output: str = "log_probs",
    size: int = SIZE,
    width: int | None = None,
    classes: int = CLASSES,
    sign: float = 1.0,
) -> Path:
    """Write log_softmax(sign · flat pixels / 255 @ WEIGHTS) as an ONNX file."""
    shape: list[str | int | None] = ["batch", size, width or size, 3]
    weights = np.resize(WEIGHTS, (size * (width or size) * 3, classes))
    constants = {"scale": np.array(255 * sign, np.float32), "weights": weights}
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), path)
    return path


def pixels(count: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """Write a student's folder: two models and the card."""
    write_linear(tmp_path / "model.onnx")
    write_linear(tmp_path / "model.int8.onnx")
    write_card(tmp_path, card(image_size=SIZE))
    return tmp_path


@pytest.mark.parametrize(("count", "batch"), [(0, 8), (1, 8), (8, 8), (21, 8), (21, 256)])
def test_log_probs_equal_the_closed_form_in_any_batch(
    tmp_path: Path, count: int, batch: int
) -> None:
    model = OnnxClassifier(write_linear(tmp_path / "m.onnx"))
    images = pixels(count)
    expected = log_softmax(images.reshape(count, len(WEIGHTS)) / 255.0 @ WEIGHTS, axis=1)
    log_probs = model.log_probs(images, batch=batch)
    assert log_probs.dtype == np.float32
    np.testing.assert_allclose(log_probs, expected, atol=1e-5)
    assert (model.input_size, model.classes) == (SIZE, CLASSES)


def test_images_of_another_size_or_type_are_refused(tmp_path: Path) -> None:
    model = OnnxClassifier(write_linear(tmp_path / "m.onnx"))
    unfit: list[Array] = [pixels(2).astype(np.float32), pixels(2)[:, :3], pixels(2)[0]]
    for images in unfit:
        with pytest.raises(DataError, match=r"takes uint8 images \[N, 4, 4, 3\], got"):
            model.log_probs(images)


def test_files_that_are_not_exported_classifiers_are_refused_in_one_line(tmp_path: Path) -> None:
    model = write_linear(tmp_path / "m.onnx")
    whole = model.read_bytes()
    cases = {"empty": b"", "text": b"not a model", "torn": whole[: len(whole) // 2]}
    for name, data in cases.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(RunError, match=f"{name}.onnx cannot be loaded as an ONNX file") as e:
            OnnxClassifier(path)
        assert "\n" not in str(e.value)
    with pytest.raises(RunError, match="does not exist"):
        OnnxClassifier(tmp_path / "missing.onnx")
    with pytest.raises(RunError, match="is not an exported classifier"):
        OnnxClassifier(write_linear(tmp_path / "other.onnx", output="scores"))
    with pytest.raises(RunError, match="is not an exported classifier"):
        OnnxClassifier(write_linear(tmp_path / "oblong.onnx", width=5))


def test_classify_resizes_images_as_training_does(student: Path, tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 7, 3), np.uint8))
    images = {"a.png": picture, "b.bmp": picture.convert("L"), "c.png": picture.convert("RGBA")}
    for name, image in images.items():
        image.save(tmp_path / name)
    paths = [tmp_path / name for name in images]
    predictions = classify(student, paths)
    model = OnnxClassifier(student / "model.onnx")
    for path, prediction in zip(paths, predictions, strict=True):
        with Image.open(path) as opened:
            expected = np.exp(model.log_probs(resize_image(opened, SIZE)[None])[0])
        np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-6)
        assert math.isclose(sum(prediction.probabilities), 1, abs_tol=1e-12)
        assert prediction.best == ("cat", "dog")[int(expected.argmax())]
        assert prediction.image == path
    assert classify(student / "model.onnx", paths, threads=2) == predictions


def test_classify_names_the_file_that_is_wrong(student: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n, then nothing")
    with pytest.raises(DataError, match=r"broken\.png cannot be read as an image"):
        classify(student, [broken])
    with pytest.raises(DataError, match=r"missing\.png cannot be read as an image"):
        classify(student, [tmp_path / "missing.png"])
    with pytest.raises(RunError, match="nowhere does not exist"):
        classify(tmp_path / "nowhere", [broken])
    write_card(student, card(image_size=5))
    with pytest.raises(RunError, match=r"card\.json beside .* another model"):
        classify(student, [broken])
    (student / "card.json").unlink()
    with pytest.raises(RunError, match=r"card\.json does not exist"):
        classify(student, [broken])


def test_classify_scales_deep_grey_images_as_training_did(student: Path, tmp_path: Path) -> None:
    grey: np.ndarray = np.linspace(0, 4095, SIZE * SIZE).reshape(SIZE, SIZE).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    Image.fromarray(np.rint(grey / 4095 * 255).astype(np.uint8)).save(tmp_path / "plain.png")
    write_card(student, card(image_size=SIZE, grey_levels=GreyLevels(integer=(0, 4095))))
    deep, plain = classify(student, [tmp_path / "deep.png", tmp_path / "plain.png"])
    assert deep.probabilities == plain.probabilities


def test_classify_may_go_on_after_unreadable_images(student: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        Image.new("RGB", (9, 7), (i, 0, 0)).save(path)
    expected = classify(student, [paths[0], paths[3]])
    paths[1].write_bytes(b"")
    paths[2].unlink()
    unreadable: dict[Path, DataError] = {}
    assert classify(student, paths, on_unreadable=unreadable.__setitem__) == expected
    assert [*unreadable] == paths[1:3]


def test_classify_uses_the_released_file(student: Path, tmp_path: Path) -> None:
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "a.png")
    (student / "model.onnx").unlink()
    with pytest.raises(RunError, match=r"model\.onnx does not exist"):
        classify(student, [tmp_path / "a.png"])
    write_card(student, card(image_size=SIZE, released="int8"))
    assert len(classify(student, [tmp_path / "a.png"])) == 1


def test_predicting_does_not_load_torch(student: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    code = (
        "import sys; from ensemble.deployment.onnx_model import classify;"
        f"classify({str(student)!r}, [{str(tmp_path / 'a.png')!r}]);"
        "print([m for m in ('torch', 'ray', 'onnx', 'scipy', 'pandas') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"
