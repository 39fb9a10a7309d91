"""The release decision in the card, and the comparison with the present champion."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import RunError
from common.statistics.conformal import fit_conformal, prediction_set
from ensemble.deployment.card import read_card, write_card
from ensemble.deployment.gates import GateMargins
from ensemble.deployment.release import beats_champion, decide_release, read_release
from ensemble.deployment.released import released_model
from ensemble.deployment.student_folder import conformal_sets
from ensemble.ledger.predictions import Predictions
from tests.ensemble.deployment.test_card import card
from tests.ensemble.deployment.test_onnx_model import WEIGHTS, pixels, write_linear
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits

MARGINS = GateMargins(max_accuracy_loss=0.02, max_nll_gain=0.1)


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


def test_the_decision_is_recorded_beside_the_files_and_in_their_cards(folder: Path) -> None:
    release = decide_release(folder, predictions(0), MARGINS, seed=0)
    assert (release.released, release.file) == ("student_int8", "model.int8.onnx")
    assert read_release(folder) == release
    assert read_card(folder).released == "int8"
    assert read_card(folder / "plain").released == "none"
    assert released_model(folder) == (folder / "model.int8.onnx", read_card(folder))


def test_the_best_single_trial_ships_from_its_own_folder(folder: Path) -> None:
    write_card(folder / "single", card())
    made = predictions(100)
    good = made.stages["ensemble"]
    stages = {**made.stages, "student_fp32": made.stages["student_int8"]}
    stages |= {"best_single": good, "best_single_int8": good}
    made = Predictions(labels=made.labels, stages=stages)
    release = decide_release(folder, made, MARGINS, seed=0)
    assert (release.released, release.file) == ("best_single_int8", "single/model.int8.onnx")
    assert released_model(folder)[0] == folder / "single" / "model.int8.onnx"
    student = read_card(folder)
    assert student.released == "none"
    assert "best_single_int8 ships" in student.released_because


def test_the_cards_hold_the_threshold_of_each_files_prediction_sets(folder: Path) -> None:
    made = predictions(100)
    decide_release(folder, made, MARGINS, coverage=0.85, seed=0)
    student, plain = read_card(folder), read_card(folder / "plain")
    assert student.int8 is not None
    for artifact, stage in ((student.fp32, "student_fp32"), (student.int8, "student_int8")):
        probabilities = np.exp(made.stages[stage])
        assert artifact.conformal == fit_conformal(probabilities, made.labels, level=0.85)
        sets = prediction_set(probabilities, artifact.conformal.threshold)
        assert sets[:, 0].mean() >= 0.85
    assert student.conformal == student.int8.conformal, "of the file that ships"
    assert plain.conformal is None, "nothing of it ships"
    assert plain.fp32.conformal is None, "it has no predictions"
    assert set(conformal_sets(folder)) == {"student_fp32", "student_int8"}


def test_corrupted_images_can_rule_a_file_out(folder: Path) -> None:
    fragile = predictions(300)
    release = decide_release(folder, predictions(0), MARGINS, corrupted=fragile, seed=0)
    assert release.released == "student_fp32"
    assert release.decision.corrupted_images == 1000
    assert "corruption_loss" in next(
        item.outcome for item in release.decision.candidates if item.stage == "student_int8"
    )
    assert read_release(folder) == release


def test_where_nothing_ships_the_reason_is_an_error(folder: Path) -> None:
    made = predictions(0)
    bad = made.stages["ensemble"][:, ::-1]
    stages = {"ensemble": made.stages["ensemble"], "student_fp32": bad, "student_int8": bad}
    release = decide_release(
        folder, Predictions(labels=made.labels, stages=stages), MARGINS, seed=0
    )
    assert (release.released, release.file) == ("none", "")
    with pytest.raises(RunError, match=r"accuracy_loss fail.*model\.onnx"):
        released_model(folder)


def test_the_card_of_an_early_version_names_the_released_file(tmp_path: Path) -> None:
    write_card(tmp_path, card(released="fp32"))
    assert read_release(tmp_path) is None
    assert released_model(tmp_path)[0] == tmp_path / "model.onnx"


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
