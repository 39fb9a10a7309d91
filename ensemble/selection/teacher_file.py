"""Check a selection.json from outside a run's folder before its ensemble teaches a student.

Axes: N examples, K classes.
"""

import hashlib
import shutil
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from common.commands import command
from common.errors import PoolError, RunError
from common.files import read_array, write_bytes_atomically
from ensemble.selection.selection import Selection, read_selection
from trainables.records import WEIGHTS, RunFolder, read_record

TEACHER = "selection.json"
"""The file in a student's folder that names its teacher if that is not the run's ensemble."""


WORK = "work"
"""The folder in a student's folder that holds its trainings until it is finished."""


def predictions_digest(log_probs: Float32[np.ndarray, "N K"]) -> str:
    """Return a digest that changes whenever a member's predictions do."""
    array = np.ascontiguousarray(log_probs, dtype="<f4")
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()[:16]


def read_selection_for(folder: RunFolder, path: Path) -> Selection:
    """Read a selection and check that it was made from this run's trials as they are now.

    Raises:
        RunError: the file is missing or damaged, belongs to another split of the data, names a
            trial that the run does not have, or was made from other predictions.
    """
    selection = read_selection(path)
    for member in selection.members:
        trial = folder.trial(member.name)
        if not (trial / "record.json").is_file():
            raise RunError(
                f"{path} names {member.name!r}, but {folder.root} has no such finished trial; "
                f"make one from this run: {_make(folder)}"
            )
        record = read_record(trial / "record.json")
        if record.split_id != selection.split_id:
            raise RunError(
                f"{path} was made on the split {selection.split_id}, but {member.name} was "
                f"trained on {record.split_id}; make a selection from this run: {_make(folder)}"
            )
        _check_predictions(selection, path, member.name, trial / "holdout.npy")
    require_weights(folder, selection)
    return selection


def require_weights(folder: RunFolder, selection: Selection) -> None:
    """Refuse an ensemble that cannot teach, before an existing student is moved away.

    Raises:
        RunError: the weights of a member are missing.
    """
    for member in selection.members:
        if not (folder.trial(member.name) / WEIGHTS).is_file():
            raise RunError(
                f"the ensemble has {member.name!r}, whose weights have been removed from "
                f"{folder.root}; restore them, or choose others: {_make(folder)}"
            )


def _make(folder: RunFolder) -> str:
    return command("select", folder.root, out="picked")


def teacher_of(folder: RunFolder) -> Selection:
    """Return the selection whose ensemble teaches the run's student.

    Raises:
        RunError: there is none, or it is damaged.
    """
    own = folder.student / TEACHER
    return read_selection(own if own.is_file() else folder.selection)


def set_teacher(folder: RunFolder, path: Path) -> None:
    """Make the ensemble of `path` the teacher.

    Unfinished trainings with another teacher, left by a killed command, are removed.
    """
    own, chosen = folder.student / TEACHER, path.read_bytes()
    before = own if own.is_file() else folder.selection
    if before.read_bytes() != chosen:
        shutil.rmtree(folder.student / WORK, ignore_errors=True)
    write_bytes_atomically(own, chosen)


def _check_predictions(selection: Selection, path: Path, name: str, predictions: Path) -> None:
    expected = selection.predictions.get(name)
    if expected is None:
        raise RunError(
            f"{path} does not say which predictions of {name} it was made from; select again with "
            "this version"
        )
    try:
        digest = predictions_digest(read_array(predictions))
    except (OSError, PoolError) as error:
        raise RunError(f"the predictions of {name} cannot be read: {error}") from None
    if digest != expected:
        raise RunError(
            f"{path} was made from other predictions of {name} than those in {predictions}; select "
            "again"
        )
