"""The release decision in the card, and the comparison with the present champion."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ensemble.deployment.card import read_card, write_card
from ensemble.deployment.gates import GateMargins
from ensemble.deployment.release import beats_champion, decide_release
from ensemble.ledger.predictions import Predictions
from tests.ensemble.deployment.test_card import card
from tests.ensemble.deployment.test_onnx_model import WEIGHTS, pixels, write_linear
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits

MARGINS = GateMargins(max_accuracy_loss=0.02, max_nll_gain=0.1, min_speedup=1.0, min_shrink=1.5)


def predictions(errors: int, examples: int = 1000) -> Predictions:
    """Ensemble and fp32 are always right; int8 is wrong on the first `errors` examples."""
    right = np.log(np.tile([0.9, 0.1], (examples, 1))).astype(np.float32)
    int8 = right.copy()
    int8[:errors] = int8[:errors, ::-1]
    stages = {"ensemble": right, "student_fp32": right, "student_int8": int8}
    return Predictions(labels=np.zeros(examples, dtype=np.int64), stages=stages)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a student's folder: its card and that of the plain student."""
    write_card(tmp_path, card())
    write_card(tmp_path / "plain", replace(card(), int8=None))
    return tmp_path


def test_int8_is_released_if_every_gate_passes(folder: Path) -> None:
    decided = decide_release(folder, predictions(0), MARGINS, seed=0)
    assert decided.released == "int8"
    assert read_card(folder) == decided


def test_fp32_is_released_with_the_gates_that_did_not_pass(folder: Path) -> None:
    decided = decide_release(folder, predictions(100), MARGINS, seed=0)
    assert decided.released == "fp32"
    assert "accuracy_loss fail" in decided.released_because
    assert "shrink" not in decided.released_because
    assert read_card(folder) == decided


def images_and_splits() -> tuple[ImageSet, Splits]:
    """Return images with the labels that the linear model gives them, all of them holdout."""
    images = pixels(200)
    labels = (images.reshape(200, -1) / 255 @ WEIGHTS).argmax(axis=1)
    rows = np.arange(200)
    none = rows[:0]
    return (
        ImageSet(name="linear", images=images, labels=labels, class_names=("cat", "dog")),
        Splits(train=none, val=none, holdout=rows, test=none, split_id="s"),
    )


def test_only_a_distinguishably_better_model_beats_the_champion(tmp_path: Path) -> None:
    images, splits = images_and_splits()
    good, bad = write_linear(tmp_path / "good.onnx"), write_linear(tmp_path / "bad.onnx", sign=-1)
    assert beats_champion(good, bad, images, splits, seed=0)
    assert not beats_champion(bad, good, images, splits, seed=0)
    assert not beats_champion(good, good, images, splits, seed=0)


def test_a_champion_with_other_classes_or_image_size_is_not_beaten(tmp_path: Path) -> None:
    images, splits = images_and_splits()
    model = write_linear(tmp_path / "model.onnx")
    classes = write_linear(tmp_path / "classes.onnx", classes=3)
    size = write_linear(tmp_path / "size.onnx", size=8)
    for champion in (classes, size):
        assert not beats_champion(model, champion, images, splits, seed=0)
