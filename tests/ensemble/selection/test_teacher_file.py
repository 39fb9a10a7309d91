"""A selection from elsewhere teaches only if it was made from the run's trials as they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import RunError
from common.files import dump_json
from common.parsing import to_mapping
from ensemble.selection.candidates import Request
from ensemble.selection.decision import select_ensemble
from ensemble.selection.run_pool import pool_from_run
from ensemble.selection.teacher_file import (
    TEACHER,
    WORK,
    read_selection_for,
    set_teacher,
    teacher_of,
)
from tests.synthetic.predictions import Shape
from tests.synthetic.run import write_run
from trainables.records import WEIGHTS, RunFolder

SHAPE = Shape(distilled=False, ledger=False)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "run", shape=SHAPE)


@pytest.fixture
def path(folder: RunFolder, tmp_path: Path) -> Path:
    """A selection of two members, with weights of the trials in place."""
    selection = select_ensemble(pool_from_run(folder), Request(members=2, source="search"))
    for member in selection.members:
        (folder.trial(member.name) / WEIGHTS).write_bytes(b"")
    path = tmp_path / "picked" / "selection.json"
    path.parent.mkdir()
    path.write_text(dump_json(to_mapping(selection)))
    return path


def test_a_selection_of_the_run_is_accepted_and_teaches(folder: RunFolder, path: Path) -> None:
    selection = read_selection_for(folder, path)
    assert selection != teacher_of(folder)
    folder.student.mkdir(exist_ok=True)
    (folder.student / TEACHER).write_bytes(path.read_bytes())
    assert teacher_of(folder) == selection


def test_another_teacher_discards_the_trainings_of_the_one_before(
    folder: RunFolder, path: Path
) -> None:
    saved = folder.student / WORK / "teacher.json"

    def kept(teacher: Path) -> bool:
        saved.parent.mkdir(parents=True, exist_ok=True)
        saved.write_text("{}")
        set_teacher(folder, teacher)
        assert (folder.student / TEACHER).read_bytes() == teacher.read_bytes()
        return saved.exists()

    assert kept(folder.selection), "the run's own ensemble taught it"
    assert not kept(path)
    assert kept(path), "a resumed command"
    assert not kept(folder.selection)


def test_changed_predictions_are_refused(folder: RunFolder, path: Path) -> None:
    name = json.loads(path.read_text())["members"][0]["name"]
    predictions = folder.trial(name) / "holdout.npy"
    array = np.load(predictions)
    array[0] = array[1]
    np.save(predictions, array)
    with pytest.raises(RunError, match=f"other predictions of {name}"):
        read_selection_for(folder, path)


def test_removed_weights_are_refused(folder: RunFolder, path: Path) -> None:
    name = json.loads(path.read_text())["members"][0]["name"]
    (folder.trial(name) / WEIGHTS).unlink()
    with pytest.raises(RunError, match=f"{name}', whose weights have been removed"):
        read_selection_for(folder, path)


def _renamed(values: dict[str, Any]) -> None:
    values["members"][0]["name"] = "t9999"


def _of_another_split(values: dict[str, Any]) -> None:
    values["split_id"] = "labels-0123"


def _without_digests(values: dict[str, Any]) -> None:
    del values["predictions"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_renamed, "no such finished trial"),
        (_of_another_split, "made on the split labels-0123"),
        (_without_digests, "does not say which predictions"),
    ],
)
def test_selections_of_other_runs_and_versions_are_refused(
    folder: RunFolder, path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(RunError, match=message):
        read_selection_for(folder, path)
