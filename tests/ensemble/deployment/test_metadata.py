"""Every ONNX file stands alone: old runtimes read it, and it describes itself."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.errors import RunError, SpecError
from ensemble.deployment.card import read_card, write_card
from ensemble.deployment.describe import write_metadata
from ensemble.deployment.export import OPSET, export_onnx, set_temperature
from ensemble.deployment.metadata import ConformalThreshold, ModelMetadata, metadata_from_props
from ensemble.deployment.onnx_model import OnnxClassifier, classify
from ensemble.deployment.quantize import quantize_int8
from quorum import Outcome
from tests.ensemble.deployment.test_card import card
from tests.ensemble.deployment.test_export import CLASSES, PLAIN, pictures, small_net
from tests.ensemble.deployment.test_onnx_model import SIZE, write_linear
from trainables.data.grey_levels import GreyLevels
from trainables.recipe import Recipe

SHARES = st.floats(0, 1)
METADATA = st.builds(
    ModelMetadata,
    class_names=st.lists(st.text(), min_size=2, max_size=4).map(tuple),
    image_size=st.integers(1, 512),
    resize_rule=st.sampled_from(["crop", "squash", "pad"]),
    grey_levels=st.builds(GreyLevels, integer=st.tuples(st.just(0.0), st.floats(1, 1e6))),
    license=st.sampled_from(["MIT", "CC-BY-4.0", "NOASSERTION"]),
    dataset=st.text(),
    conformal=st.none() | st.builds(ConformalThreshold, coverage=SHARES, min_probability=SHARES),
)


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """Return a model with metadata in a folder without a card."""
    (tmp_path / "alone").mkdir()
    path = write_linear(tmp_path / "alone" / "model.onnx")
    write_metadata(path, card(image_size=SIZE, grey_levels=GreyLevels(integer=(0, 4095))).metadata)
    return path


def requirements(path: Path) -> tuple[int, dict[str, int], set[str]]:
    """Return a file's IR version, the operator sets that it imports, and those that it uses."""
    model = onnx.load(path)
    imported = {item.domain: item.version for item in model.opset_import}
    return model.ir_version, imported, {node.domain for node in model.graph.node}


@pytest.mark.parametrize(
    "recipe",
    [
        PLAIN,
        PLAIN.with_values(input_size=20),
        Recipe(width=4, activation="silu", attention="se", tta="mirror_translate"),
        Recipe(width=4, activation="gelu", attention="eca"),
    ],
    ids=["plain", "resizing", "views", "gelu"],
)
def test_every_exported_file_is_readable_by_old_runtimes(tmp_path: Path, recipe: Recipe) -> None:
    fp32, int8 = tmp_path / "model.onnx", tmp_path / "model.int8.onnx"
    export_onnx(small_net(recipe), fp32, image_size=8, classes=CLASSES)
    quantize_int8(
        fp32,
        int8,
        calibration=pictures(16),
        holdout=pictures(16),
        labels=np.arange(16) % CLASSES,
        methods=["MinMax"],
        reduce_range=True,
    )
    for path in (fp32, int8):
        set_temperature(path, 1.5)
        write_metadata(path, card(image_size=8, class_names=("a", "b", "c")).metadata)
        ir_version, imported, used = requirements(path)
        assert ir_version <= 9
        assert imported == {"": OPSET}
        assert used == {""}
        assert OnnxClassifier(path).metadata is not None


@pytest.mark.slow
def test_every_file_of_a_run_is_readable_by_old_runtimes_and_describes_itself(
    finished_run: Outcome,
) -> None:
    paths = sorted(finished_run.folder.root.rglob("*.onnx"))
    assert {path.name for path in paths} == {"model.onnx", "model.int8.onnx"}
    student = read_card(finished_run.folder.student)
    for path in paths:
        ir_version, imported, used = requirements(path)
        assert ir_version <= 9
        assert set(imported) == used == {""}
        metadata = OnnxClassifier(path).metadata
        assert metadata is not None
        card = read_card(path.parent)
        artifact = card.int8 if card.int8 is not None and path.name == card.int8.file else card.fp32
        assert artifact.conformal is not None
        rule = ConformalThreshold(
            coverage=artifact.conformal.level, min_probability=artifact.conformal.threshold
        )
        assert metadata == replace(card.metadata, conformal=rule)
        assert metadata.class_names == student.class_names
        assert metadata.split_id == student.split_id
        assert metadata.license == "CC0-1.0"
        assert metadata.dataset_fingerprint == student.dataset["fingerprint"]


@given(METADATA)
def test_metadata_are_read_as_they_were_written(metadata: ModelMetadata) -> None:
    props = metadata.to_props()
    assert all(isinstance(value, str) for value in props.values())
    assert json.loads(props["class_names"]) == list(metadata.class_names)
    assert metadata_from_props({**props, "a_later_key": "x"}, where="here") == metadata


def test_a_file_without_a_card_predicts_as_with_one(alone: Path, tmp_path: Path) -> None:
    grey: np.ndarray = np.linspace(0, 4095, 63).reshape(7, 9).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    (prediction,) = classify(alone, [tmp_path / "deep.png"])
    beside = tmp_path / "beside"
    beside.mkdir()
    write_linear(beside / "model.onnx")
    write_card(beside, card(image_size=SIZE, grey_levels=GreyLevels(integer=(0, 4095))))
    (expected,) = classify(beside / "model.onnx", [tmp_path / "deep.png"])
    assert prediction == expected


def test_metadata_come_before_a_card_that_belongs_to_another_file(
    alone: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    write_card(alone.parent, card(image_size=5, class_names=("x", "y", "z")))
    (prediction,) = classify(alone, [tmp_path / "a.png"])
    assert prediction.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_names", "cat, dog"),
        ("class_names", '["cat"'),
        ("class_names", '["cat", "dog", "cow"]'),
        ("class_names", '"cat"'),
        ("image_size", '"four"'),
        ("image_size", "5"),
        ("resize_rule", "stretch"),
        ("grey_levels", "[]"),
        ("grey_levels", '{"integer": [0]}'),
        ("conformal", '{"coverage": 2, "min_probability": 0.5}'),
        ("quorum_schema", "99"),
    ],
)
def test_damaged_metadata_are_an_error_in_one_line(alone: Path, key: str, value: str) -> None:
    model = onnx.load(alone)
    props = {item.key: item.value for item in model.metadata_props}
    onnx.helper.set_model_props(model, {**props, key: value})
    onnx.save(model, alone)
    with pytest.raises(RunError, match=r"model\.onnx") as error:
        classify(alone, [])
    assert "\n" not in str(error.value)


def test_a_model_that_nothing_describes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"card\.json does not exist"):
        classify(write_linear(tmp_path / "model.onnx"), [])


def test_a_threshold_is_a_share() -> None:
    with pytest.raises(SpecError, match="min_probability must lie in"):
        ConformalThreshold(coverage=0.9, min_probability=1.5)


def test_metadata_survive_a_copy_and_a_new_temperature(alone: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(alone, tmp_path / "copy.onnx"))
    about = replace(card(image_size=SIZE).metadata, license="MIT")
    write_metadata(copy, about)
    assert OnnxClassifier(copy).metadata == about
