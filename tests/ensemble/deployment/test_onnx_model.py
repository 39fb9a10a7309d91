"""Running an ONNX classifier: against a closed form, on image files, with a clock.

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
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.special import log_softmax
from scipy.stats import binom

from common.errors import DataError, RunError
from ensemble.deployment.card import write_card
from ensemble.deployment.onnx_model import (
    OnnxClassifier,
    _median_ranks,
    classify,
    latency,
    paired_latency,
)
from tests.docs import ROOT
from tests.ensemble.deployment.test_card import card
from trainables.data.pixels import resize_image

Array = np.ndarray[Any, Any]
SIZE, CLASSES = 4, 2
WEIGHTS = np.random.default_rng(0).normal(size=(SIZE * SIZE * 3, CLASSES)).astype(np.float32)


def write_linear(path: Path, *, output: str = "log_probs", width: int = SIZE) -> Path:
    """log_softmax(flat pixels / 255 @ WEIGHTS) as an ONNX file."""
    weights = np.resize(WEIGHTS, (SIZE * width * 3, CLASSES))
    constants = {"scale": np.array(255, np.float32), "weights": weights}
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
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIZE, width, 3])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", CLASSES])],
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
    """A student's folder: two models and the card."""
    write_linear(tmp_path / "model.onnx")
    write_linear(tmp_path / "model.int8.onnx")
    write_card(tmp_path, card(image_size=SIZE))
    return tmp_path


@pytest.mark.parametrize(("count", "batch"), [(0, 8), (1, 8), (8, 8), (21, 8), (21, 256)])
def test_log_probs_have_the_closed_form_in_any_batch(
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
    wrongs: list[Array] = [pixels(2).astype(np.float32), pixels(2)[:, :3], pixels(2)[0]]
    for wrong in wrongs:
        with pytest.raises(DataError, match=r"takes uint8 images \[N, 4, 4, 3\], got"):
            model.log_probs(wrong)


def test_what_is_no_classifier_of_ours_is_one_clear_line(tmp_path: Path) -> None:
    model = write_linear(tmp_path / "m.onnx")
    whole = model.read_bytes()
    cases = {"empty": b"", "text": b"not a model", "torn": whole[: len(whole) // 2]}
    for name, data in cases.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(RunError, match=f"{name}.onnx cannot be loaded as an ONNX file") as e:
            OnnxClassifier(path)
        assert "\n" not in str(e.value)
    with pytest.raises(RunError, match="is not an ONNX file: no such file"):
        OnnxClassifier(tmp_path / "missing.onnx")
    with pytest.raises(RunError, match="is no classifier of ours"):
        OnnxClassifier(write_linear(tmp_path / "other.onnx", output="scores"))
    with pytest.raises(RunError, match="is no classifier of ours"):
        OnnxClassifier(write_linear(tmp_path / "oblong.onnx", width=5))


def test_classify_reads_any_image_by_the_one_rule(student: Path, tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 7, 3), np.uint8))
    forms = {"a.png": picture, "b.bmp": picture.convert("L"), "c.png": picture.convert("RGBA")}
    for name, form in forms.items():
        form.save(tmp_path / name)
    paths = [tmp_path / name for name in forms]
    predictions = classify(student, paths)
    model = OnnxClassifier(student / "model.onnx")
    for path, found in zip(paths, predictions, strict=True):
        with Image.open(path) as image:
            expected = np.exp(model.log_probs(resize_image(image, SIZE)[None])[0])
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
        assert math.isclose(sum(found.probabilities), 1, abs_tol=1e-12)
        assert found.best == ("cat", "dog")[int(expected.argmax())]
        assert found.image == path
    assert classify(student / "model.onnx", paths, threads=2) == predictions


def test_classify_names_what_is_wrong(student: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n, then nothing")
    with pytest.raises(DataError, match=r"broken\.png cannot be read as an image"):
        classify(student, [broken])
    with pytest.raises(DataError, match=r"missing\.png cannot be read as an image"):
        classify(student, [tmp_path / "missing.png"])
    with pytest.raises(RunError, match="no model at"):
        classify(tmp_path / "nowhere", [broken])
    write_card(student, card(image_size=5))
    with pytest.raises(RunError, match=r"card\.json beside .* is of another model"):
        classify(student, [broken])
    (student / "card.json").unlink()
    with pytest.raises(RunError, match=r"card\.json does not exist"):
        classify(student, [broken])


def test_the_released_file_is_the_one_that_answers(student: Path, tmp_path: Path) -> None:
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "a.png")
    (student / "model.onnx").unlink()
    with pytest.raises(RunError, match=r"model\.onnx is not an ONNX file"):
        classify(student, [tmp_path / "a.png"])
    write_card(student, card(image_size=SIZE, released="int8"))
    assert len(classify(student, [tmp_path / "a.png"])) == 1


def test_latency_is_in_the_units_it_says(tmp_path: Path) -> None:
    model = OnnxClassifier(write_linear(tmp_path / "m.onnx"))
    measured = latency(model, pixels(3), batch=8, repeats=20)
    assert 1e-4 < measured.ms_batch1 < 10
    assert measured.interval[0] <= measured.ms_batch1 <= measured.interval[1]
    assert 100 < measured.images_per_second < 1e8
    assert (measured.batch, measured.repeats, measured.threads) == (8, 20, 1)


class Clock:
    """Of a machine that slows down: to half its speed within a quarter of a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds * 2 ** (4 * self.now)


class TimedClassifier(OnnxClassifier):
    """Takes a known time a call."""

    def __init__(self, path: Path, seconds: float, clock: Clock) -> None:
        super().__init__(path)
        self.seconds, self.clock = seconds, clock

    def run(self, images: Array) -> Array:
        self.clock.pass_by(self.seconds)
        return np.empty(0)


def test_paired_latency_finds_a_known_ratio_on_a_machine_that_slows_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = write_linear(tmp_path / "m.onnx"), Clock()
    monkeypatch.setattr("ensemble.deployment.onnx_model.time", clock)
    slow, fast = (TimedClassifier(path, seconds, clock) for seconds in (6e-4, 2e-4))
    found = paired_latency(slow, fast, pixels(1), repeats=9)
    assert found.value == pytest.approx(3, rel=0.02)
    assert found.bound <= found.value
    reverse = paired_latency(fast, slow, pixels(1), repeats=9)
    assert reverse.value == pytest.approx(1 / 3, rel=0.02)
    with pytest.raises(ValueError, match=r"4 repeats are too few .* at least 5"):
        paired_latency(fast, slow, pixels(1), repeats=4)


@given(repeats=st.integers(8, 200), level=st.sampled_from([0.9, 0.95, 0.975]))
def test_the_ranks_are_the_tightest_that_keep_the_level(repeats: int, level: float) -> None:
    low, high = _median_ranks(repeats, level)
    assert binom.cdf(low, repeats, 0.5) <= 1 - level < binom.cdf(low + 1, repeats, 0.5)
    assert low + high == repeats - 1


def test_the_bound_covers_at_its_level() -> None:
    """False alarms of a 95% bound in 4,000 trials: at most 5% + 3 standard errors = 6.0%."""
    samples = np.sort(np.random.default_rng(0).exponential(size=(4000, 30)), axis=1)
    rank, _ = _median_ranks(30, 0.95)
    assert (samples[:, rank] > math.log(2)).mean() <= 0.060


def test_predicting_loads_no_torch(student: Path, tmp_path: Path) -> None:
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
