"""The student is the best single trial, trained further, whatever that trial started from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ensemble.deployment.card import read_card
from ensemble.deployment.onnx_model import predict
from ensemble.selection.selection import read_selection
from quorum import Outcome, student_stage
from search.space.sections import StudentSpec
from tests.opening import quick_run
from tests.tiny import tiny_spec
from trainables.recipe import Recipe
from trainables.records import RunFolder, read_start

AT_REST = {"adamw_lr": 0.0, "epochs": 1}
"""Recipe values under which training changes no weight."""

pytestmark = pytest.mark.slow


@pytest.fixture
def undistilled(finished_run: Outcome, tmp_path: Path) -> RunFolder:
    """Return a copy of the finished run before its student."""
    folder = RunFolder(tmp_path / "run")
    results = shutil.ignore_patterns("student", "ledger*", "report.pdf", "mlflow*")
    shutil.copytree(finished_run.folder.root, folder.root, ignore=results)
    return folder


def distilled(folder: RunFolder, student: StudentSpec) -> tuple[Recipe, np.ndarray]:
    """Distill with these settings; return the student's recipe and its classes on val."""
    spec = tiny_spec().with_values(student=student)
    folder.sweep.write_text(spec.to_yaml())
    with quick_run(folder, spec, resume=True) as run:
        student_stage.distill(run)
        val = run.images.images[run.splits.val]
    card = read_card(folder.student)
    answers = predict(folder.student / card.fp32.file, val).argmax(axis=1)
    return Recipe.from_mapping(card.recipe), answers


def best_of(folder: RunFolder) -> Path:
    return folder.trial(read_selection(folder.selection).best_single.name)


@pytest.mark.parametrize("pretrained", [False, True], ids=["scratch", "pretrained"])
def test_the_student_starts_from_the_best_trial(pretrained: bool, undistilled: RunFolder) -> None:
    """Without a learning rate, it answers as that trial does."""
    best = best_of(undistilled)
    if pretrained:
        weights = undistilled.root.parent / "initial.safetensors"
        shutil.copy(best / "weights.safetensors", weights)
        start = json.loads((best / "start.json").read_text())
        start["recipe"]["pretrained"] = str(weights)
        (best / "start.json").write_text(json.dumps(start))
    recipe, answers = distilled(undistilled, StudentSpec(start="best_single", tuning=AT_REST))
    trial = read_start(best / "start.json").recipe
    assert bool(trial.architecture.pretrained) is pretrained
    assert recipe.architecture == trial.architecture
    found = np.load(best / "val.npy")
    assert (answers == found.argmax(axis=1)).mean() > 0.95


def test_a_student_with_random_weights_has_its_own_recipe(undistilled: RunFolder) -> None:
    values = {"block": "plain", "activation": "relu", **AT_REST}
    recipe, _ = distilled(undistilled, StudentSpec(recipe=values))
    assert recipe.architecture.block == "plain"
