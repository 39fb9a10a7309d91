"""Converted files predict what the ONNX file predicts, or are not written."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from common.errors import RunError, SpecError
from ensemble.deployment import conversion
from ensemble.deployment.card import write_card
from ensemble.deployment.conversion import FORMATS, TOLERANCE, convert_model, random_images
from ensemble.deployment.describe import write_metadata
from ensemble.deployment.metadata import metadata_from_props
from ensemble.deployment.onnx_model import OnnxClassifier
from quorum.cli import export as command
from quorum.cli.main import main
from tests.command_line import user_error
from tests.ensemble.deployment.test_card import card
from tests.ensemble.deployment.test_onnx_model import SIZE, pixels, write_linear


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = write_linear(tmp_path / "model.onnx")
    write_metadata(path, card(image_size=SIZE, class_names=("猫", "b\x1b\n")).metadata)
    return path


def test_a_file_of_an_early_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = write_linear(tmp_path / "model.onnx")
    graph = onnx.load(path)
    graph.ir_version = 10
    graph.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(graph, path)
    about = card(image_size=SIZE)
    write_card(tmp_path, about)
    made = convert_model(OnnxClassifier(path), tmp_path / "new.onnx", format="onnx")
    written = onnx.load(made.files[0])
    assert written.ir_version == conversion.EARLY_IR_VERSION
    assert [item.domain for item in written.opset_import] == [""]
    assert OnnxClassifier(made.files[0]).metadata == about.metadata


def test_openvino_gets_the_description_that_lies_beside_an_early_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = card(image_size=SIZE)
    write_card(tmp_path, about)
    classifier = OnnxClassifier(write_linear(tmp_path / "model.onnx"))
    assert classifier.metadata is None
    written: dict[str, str] = {}

    class Model:
        def set_rt_info(self, value: str, path: list[str]) -> None:
            written[path[-1]] = value

    openvino = ModuleType("openvino")
    openvino.__dict__["convert_model"] = lambda _: Model()
    openvino.__dict__["save_model"] = lambda *_, **__: None
    monkeypatch.setitem(sys.modules, "openvino", openvino)
    conversion.CONVERTERS["openvino"].convert(classifier, tmp_path / "model.xml")
    assert metadata_from_props(written, where="model.xml") == about.metadata


def suffix(format: str) -> str:
    return conversion.CONVERTERS[format].suffix


def installed(format: str) -> None:
    if format != "onnx":
        pytest.importorskip(format)


def test_the_command_offers_every_format() -> None:
    assert command.FORMATS == FORMATS == tuple(conversion.CONVERTERS)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("given", [True, False])
def test_a_converted_file_predicts_the_same(
    format: conversion.Format, given: bool, model: Path, tmp_path: Path
) -> None:
    installed(format)
    (tmp_path / "out").mkdir()
    images = pixels(7) if given else None
    made = convert_model(OnnxClassifier(model), tmp_path / "out", format=format, images=images)
    assert made.files[0] == tmp_path / "out" / f"model{suffix(format)}"
    assert sorted(made.files) == sorted((tmp_path / "out").iterdir())
    assert made.max_difference <= TOLERANCE
    assert made.images == (7 if given else len(random_images(SIZE)))
    expected = OnnxClassifier(model).log_probs(pixels(5, seed=1))
    log_probs = conversion.CONVERTERS[format].predict(made.files[0], pixels(5, seed=1))
    np.testing.assert_allclose(log_probs, expected, atol=TOLERANCE)


def test_another_model_is_refused_and_nothing_written(model: Path, tmp_path: Path) -> None:
    """The comparison sees a file that is replaced after it was loaded."""
    classifier = OnnxClassifier(model)
    write_linear(model, sign=-1.0)
    with pytest.raises(RunError, match=r"differs from model\.onnx by .* nothing was written"):
        convert_model(classifier, tmp_path / "other.onnx", format="onnx")
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_targets_that_exist_or_have_another_suffix_are_refused(
    format: conversion.Format, model: Path, tmp_path: Path
) -> None:
    classifier = OnnxClassifier(model)
    taken = tmp_path / f"taken{suffix(format)}"
    taken.write_text("mine")
    with pytest.raises(RunError, match="exists"):
        convert_model(classifier, taken, format=format)
    assert taken.read_text() == "mine"
    with pytest.raises(SpecError, match=suffix(format)):
        convert_model(classifier, tmp_path / "model.bin", format=format)


def test_an_unknown_format_lists_the_known_ones(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="onnx, openvino"):
        convert_model(OnnxClassifier(model), tmp_path, format="coreml")  # type: ignore[arg-type]


def test_a_missing_converter_names_its_extra(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    line = user_error(capsys, "export", model, "--format", "openvino", "-o", tmp_path / "model.xml")
    assert "pip install -e '.[openvino]'" in line
    assert not (tmp_path / "model.xml").exists()


def test_the_command_prints_the_file_and_the_difference(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "copy.onnx"
    assert main(["export", str(model), "-o", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    assert OnnxClassifier(out).metadata == OnnxClassifier(model).metadata
