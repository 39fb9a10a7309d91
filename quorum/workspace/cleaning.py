"""What a run takes on the disk, and what of it can go.

Of a run nothing goes that a command could not do without or make again: records,
predictions, the weights of trials that finished the schedule, the selection, the students,
the ledger, the journal and sweep.yaml stay. What may go, and what makes it again:

    checkpoints of trials that have ended          nothing needs them
    weights of trials that were stopped early      nothing needs them: they never enter the
                                                   pool, and their predictions stay
    work of a student that is done, and temporary  nothing needs them
      files of processes that were killed
    figures                                        `quorum report`
    report.pdf                  (with everything)  `quorum report`
    optuna.journal              (with everything)  the next search, from the journal
    decoded images, this node   (with the cache)   the next command that reads the data

Symbolic links are neither followed nor counted.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from journal.journal import Journal, read_state
from journal.state import RunState
from trainables.data.cache import find_entries
from trainables.records import RunFolder

FINISHED_FILES = ("card.json", "model.onnx")
"""What a student has that is done with its work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removable:
    """Something that can go."""

    what: str
    """In a few words, with what makes it again."""
    paths: tuple[Path, ...]
    bytes: int


def usage(folder: RunFolder) -> dict[str, int]:
    """Bytes on the disk by part of a run, its decoded images and MLflow's store included.

    MLflow's store is shared by all runs of a folder.
    """
    root = folder.root
    parts = {
        "checkpoints": [folder.checkpoints],
        "trials": [root / "trials"],
        "student": sorted(root.glob("student*")),
        "ledger": [folder.ledger],
        "figures and report": [folder.figures, folder.report],
    }
    sizes = {name: _bytes(paths) for name, paths in parts.items()}
    sizes["journal and the rest"] = _bytes([root]) - sum(sizes.values())
    store = [root.resolve().parent / name for name in ("mlflow.db", "mlartifacts")]
    sizes["MLflow, all runs"] = _bytes(store)
    sizes["decoded images, this node"] = _bytes(_cached(folder))
    return sizes


def run_size(folder: RunFolder) -> int:
    """Return the bytes in a run's own folder."""
    return _bytes([folder.root])


def removable(
    folder: RunFolder, *, everything: bool = False, cache: bool = False
) -> list[Removable]:
    """What can go now, without what is empty."""
    state = read_state(folder.journal)
    found = {
        "checkpoints of trials that have ended": _checkpoints(folder, state),
        "weights of trials that were stopped early": _stopped(folder, state),
        "work of students that are done": _students_work(folder),
        "temporary files of killed processes": _temporary(folder),
        "figures (quorum report draws them again)": [folder.figures],
    }
    if everything:
        found["report.pdf (quorum report sets it again)"] = [folder.report]
        found["optuna.journal (the next search makes it again)"] = [folder.optuna]
    if cache:
        found["decoded images on this node (decoded again when needed)"] = _cached(folder)
    things = [
        Removable(what=what, paths=tuple(paths), bytes=_bytes(paths))
        for what, given in found.items()
        if (paths := [path for path in given if path.exists() and not _linked(folder, path)])
    ]
    return [thing for thing in things if thing.bytes]


def clean(folder: RunFolder, *, everything: bool = False, cache: bool = False) -> list[Removable]:
    """Remove what can go, under the journal's lock; says what went.

    Raises:
        RunError: a process works on the run.
    """
    with Journal(folder.journal):
        things = removable(folder, everything=everything, cache=cache)
        for path in (path for thing in things for path in thing.paths):
            if path.is_dir():
                shutil.rmtree(path)  # which removes links instead of following them
            else:
                path.unlink()
    return things


def _checkpoints(folder: RunFolder, state: RunState) -> list[Path]:
    """SESSION/TRIAL of trials that do not go on from there; whole sessions where none does."""
    kept = {
        Path(checkpoint.path).parent.as_posix()
        for trial in state.trials.values()
        if trial.end is None
        for checkpoint in trial.checkpoints
    }
    found = []
    for session in _inside(folder.checkpoints):
        trials = [path.relative_to(folder.checkpoints).as_posix() for path in _inside(session)]
        if kept.isdisjoint(trials):
            found.append(session)
        else:
            found += [folder.checkpoints / name for name in trials if name not in kept]
    return found


def _stopped(folder: RunFolder, state: RunState) -> list[Path]:
    ended = [trial for trial in state.trials.values() if trial.status in ("pruned", "failed")]
    places = [folder.trial(trial.name) for trial in ended]
    return [place / "weights.safetensors" for place in places if (place / "record.json").is_file()]


def _students_work(folder: RunFolder) -> list[Path]:
    students = [path for path in folder.root.glob("student*") if not path.is_symlink()]
    return [
        path / "work"
        for path in students
        if all((path / name).is_file() for name in FINISHED_FILES)
    ]


def _temporary(folder: RunFolder) -> list[Path]:
    """Left by `common.files.write_bytes_atomically`."""
    return [
        path
        for place in (folder.root, folder.student, folder.ledger, *_inside(folder.root / "trials"))
        for path in _inside(place)
        if _TEMPORARY.fullmatch(path.name) and path.is_file()
    ]


def _cached(folder: RunFolder) -> list[Path]:
    """The decoded images of this run's data set."""
    started = read_state(folder.journal).started
    return [] if started is None else find_entries(started.fingerprint)


def _linked(folder: RunFolder, path: Path) -> bool:
    """Whether a symbolic link stands between the run's folder and `path`, or is it."""
    if not path.is_relative_to(folder.root):
        return path.is_symlink()
    between = [path, *path.parents]
    return any(part.is_symlink() for part in between[: between.index(folder.root)])


def _inside(folder: Path) -> list[Path]:
    """What stands in a folder, in order; nothing where it is a link or no folder."""
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _bytes(paths: Iterable[Path]) -> int:
    return sum(size for path in paths for size in _sizes(path))


def _sizes(path: Path) -> Iterator[int]:
    if path.is_symlink() or not path.exists():
        return
    if not path.is_dir():
        yield path.stat().st_size
        return
    for root, _, files in os.walk(path):
        for name in files:
            try:
                status = (Path(root) / name).lstat()
            except FileNotFoundError:
                continue  # a run at work tidies up
            if stat.S_ISREG(status.st_mode):
                yield status.st_size


_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
"""A name that `tempfile` makes of `.NAME.`."""
