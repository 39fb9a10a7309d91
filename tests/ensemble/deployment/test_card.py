"""The student's card: reading, writing, and what is refused."""

import json
from pathlib import Path

import pytest

from common.errors import RunError, SpecError
from common.files import read_json
from ensemble.deployment.card import (
    Artifact,
    Card,
    Latency,
    Parity,
    Quantization,
    Speedup,
    TeacherMember,
    read_card,
    write_card,
)

LATENCY = Latency(
    ms_batch1=0.1, interval=(0.09, 0.12), images_per_second=9e3, batch=256, repeats=50, threads=1
)


def card(**values: object) -> Card:
    """Return a complete card with some fields replaced."""
    fields: dict[str, object] = {
        "class_names": ("cat", "dog"),
        "image_size": 16,
        "split_id": "abc",
        "code_version": "0",
        "recipe": {"width": 16},
        "seed": 0,
        "params": 10,
        "steps": 5,
        "train_seconds": 1.5,
        "teacher": (
            TeacherMember(name="t0001", weight=0.75),
            TeacherMember(name="s00", weight=0.25),
        ),
        "teacher_temperature": 1.25,
        "fp32": Artifact(file="model.onnx", bytes=9, sha256="0", temperature=1.5, latency=LATENCY),
        "int8": Artifact(file="model.int8.onnx", bytes=3, sha256="1", temperature=1.25),
        "quantization": Quantization(
            method="Entropy", holdout_nll={"Entropy": 0.25}, qdq_nodes=4, reduce_range=False
        ),
        "parity": Parity(max_abs=0.1, mean_abs=0.01, agreement=0.99, images=400),
        "speedup": Speedup(value=2.0, bound=1.9, level=0.95, repeats=50),
        "machine": {"processor": "x", "cpu_flags": ["avx2"]},
    }
    return Card(**{**fields, **values})  # type: ignore[arg-type]


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    for released in ("fp32", "int8"):
        written = card(released=released, released_because="all gates pass")
        assert write_card(tmp_path, written) == tmp_path / "card.json"
        assert read_card(tmp_path) == written
        assert read_card(tmp_path).shipped == getattr(written, released)


def test_a_card_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(SpecError, match="no int8 file"):
        card(released="int8", int8=None)
    with pytest.raises(SpecError, match="class_names"):
        card(class_names=("cat",))


@pytest.mark.parametrize("name", ["../model.onnx", "/model.onnx", "a/b.onnx", "", ".."])
def test_a_file_outside_the_folder_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="file must be a name in the card's folder"):
        Artifact(file=name, bytes=1, sha256="0", temperature=1.0)


def test_a_missing_damaged_or_newer_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"card\.json does not exist"):
        read_card(tmp_path)
    path = write_card(tmp_path, card())
    text = path.read_text()
    for cut in range(0, len(text) - 1, 97):
        path.write_text(text[:cut])
        with pytest.raises(RunError, match=r"card\.json is damaged"):
            read_card(tmp_path)
    content = json.loads(text)
    path.write_text(json.dumps({**content, "schema": 99}))
    with pytest.raises(RunError, match="schema 99"):
        read_card(tmp_path)
    path.write_text(json.dumps({**content, "classnames": []}))
    with pytest.raises(RunError, match="did you mean 'class_names'"):
        read_card(tmp_path)


def test_a_card_states_the_resize_rule_and_older_ones_crop(tmp_path: Path) -> None:
    written = read_json(write_card(tmp_path, card(image_size=4)))
    assert written["resize_rule"] == "crop"
    assert "centred square" in written["resize"]
    assert "4×4 pixels" in written["resize"]
    assert "the whole image" in card(image_size=4, resize_rule="squash").resize
    old = {**written, "resize": "as in training: trainables.data.pixels.resize_image"}
    del old["resize_rule"]
    (tmp_path / "card.json").write_text(json.dumps(old))
    assert read_card(tmp_path).resize_rule == "crop"
