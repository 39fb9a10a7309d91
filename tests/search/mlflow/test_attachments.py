"""The files that are copied to MLflow."""

import csv
import os
from pathlib import Path

import yaml

from journal.events import EPOCH_FIELDS, EpochEnded, TrialEnded, TrialStarted
from search.mlflow.attachments import MOST_BYTES, write_attachments
from search.mlflow.runs import SWEEP, RunChange
from tests.events import of_type
from tests.search.mlflow.mirrored import EVENTS, projected
from trainables.recipe import Recipe
from trainables.records import RunFolder

ENDS = {e.trial: e.status for e in of_type(EVENTS, TrialEnded)}
COMPLETED = next(trial for trial, status in ENDS.items() if status == "completed")
PRUNED = next(trial for trial, status in ENDS.items() if status == "pruned")


def run_folder(root: Path) -> RunFolder:
    folder = RunFolder(root / "digits-1")
    for name in (COMPLETED, PRUNED):
        folder.trial(name).mkdir(parents=True)
        for file in ("val.npy", "holdout.npy", "record.json", "weights.safetensors"):
            (folder.trial(name) / file).write_bytes(name.encode())
    for file in ("sweep.yaml", "selection.json", "report.pdf", "ledger/ledger.json",
                 "ledger/test_logprobs.npz", "figures/contact-sheet.png"):  # fmt: skip
        path = folder.root / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(file)
    return folder


def written(folder: RunFolder, change: RunChange, place: Path) -> dict[str, Path]:
    place.mkdir()
    write_attachments(folder, change, place)
    return {str(p.relative_to(place)): p for p in place.rglob("*") if p.is_file()}


def test_a_trials_recipe_and_curve_come_from_its_events(tmp_path: Path) -> None:
    changes = projected(EVENTS)
    files = written(run_folder(tmp_path), changes[COMPLETED], tmp_path / "out")
    assert sorted(files) == [
        "curve.csv", "predictions/holdout.npy", "predictions/val.npy", "recipe.yaml",
        "record.json",
    ]  # fmt: skip
    started = next(e for e in of_type(EVENTS, TrialStarted) if e.trial == COMPLETED)
    recipe = yaml.safe_load(files["recipe.yaml"].read_text())["recipe"]
    assert Recipe.from_mapping(recipe, where="recipe") == Recipe.from_mapping(
        started.recipe, where="recipe"
    )
    with files["curve.csv"].open() as file:
        rows = list(csv.DictReader(file))
    epochs = [e for e in of_type(EVENTS, EpochEnded) if e.trial == COMPLETED]
    assert tuple(rows[0]) == EPOCH_FIELDS
    assert [float(row["val_nll"]) for row in rows] == [e.val_nll for e in epochs]
    assert [row["rung"] for row in rows] == [str(e.rung or "") for e in epochs]


def test_only_completed_trials_have_predictions(tmp_path: Path) -> None:
    changes = projected(EVENTS)
    files = written(run_folder(tmp_path), changes[PRUNED], tmp_path / "out")
    assert sorted(files) == ["curve.csv", "recipe.yaml", "record.json"]


def test_a_run_has_its_ledger_and_report_and_no_pictures(tmp_path: Path) -> None:
    files = written(run_folder(tmp_path), projected(EVENTS)[SWEEP], tmp_path / "out")
    assert sorted(files) == ["ledger.json", "report.pdf", "selection.json", "sweep.yaml"]


def test_the_recipe_and_curve_need_no_folder(tmp_path: Path) -> None:
    changes = projected(EVENTS)
    files = written(RunFolder(tmp_path / "gone"), changes[COMPLETED], tmp_path / "out")
    assert sorted(files) == ["curve.csv", "recipe.yaml"]
    assert written(RunFolder(tmp_path / "gone"), changes["ensemble"], tmp_path / "none") == {}


def test_a_huge_file_is_not_copied(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    os.truncate(folder.trial(COMPLETED) / "val.npy", MOST_BYTES + 1)
    os.truncate(folder.trial(COMPLETED) / "holdout.npy", MOST_BYTES)
    files = written(folder, projected(EVENTS)[COMPLETED], tmp_path / "out")
    assert "predictions/val.npy" not in files
    assert "predictions/holdout.npy" in files
