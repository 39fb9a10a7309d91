"""Disk space of a run: its use, and the files that can be removed.

Cleaning removes only files that no command needs or that a command can make again. Records,
predictions, weights of trials that can be members of an ensemble, the selection, the students, the
ledger, the journal and sweep.yaml stay. Removable files, and the command that makes them again:

    checkpoints of trials that have ended          not needed again
    weights of trials that were stopped early      not needed again: they never enter the pool,
      (in runs of earlier versions)                and their predictions stay
    work files of finished students, temporary     not needed again
      files of killed processes
    figures                                        `quorum report`
    report.pdf                  (with everything)  `quorum report`
    optuna.journal              (with everything)  the next search, from the journal
    decoded images, this node   (with the cache)   the next command that reads the data

Symbolic links are neither followed nor counted.
"""

import math
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from analysis.facts.status import DiskUsage
from journal.journal import Journal, read_state
from journal.state import RunState
from trainables.data.cache import find_entries
from trainables.records import WEIGHTS, RunFolder

FINISHED_FILES = ("card.json", "model.onnx")
"""Files of a student whose training is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removable:
    """Files that can be removed together."""

    description: str
    """A few words, with the command that makes the files again."""
    paths: tuple[Path, ...]
    bytes: int


def usage(folder: RunFolder) -> dict[str, int]:
    """Return the bytes on disk of each part of a run, decoded images and MLflow's store included.

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


def disk_usage(folder: RunFolder) -> DiskUsage:
    """Return a run's disk use, and how much of it can be removed."""
    return DiskUsage(parts=usage(folder), removable=sum(part.bytes for part in removable(folder)))


def run_size(folder: RunFolder) -> int:
    """Return the bytes in a run's own folder."""
    return _bytes([folder.root])


def removable(
    folder: RunFolder, *, everything: bool = False, cache: bool = False
) -> list[Removable]:
    """Return what can be removed now; empty parts are left out."""
    state = read_state(folder.journal)
    candidates = {
        "checkpoints of trials that have ended": _checkpoints(folder, state),
        "weights of trials that were stopped early": _stopped(folder, state),
        "work files of finished students": _students_work(folder),
        "temporary files of killed processes": _temporary(folder),
        "figures (the command `report` makes them again)": [folder.figures],
    }
    if everything:
        candidates["report.pdf (the command `report` makes it again)"] = [folder.report]
        candidates["optuna.journal (made again by the next search)"] = [folder.optuna]
    if cache:
        candidates["decoded images on this node (decoded again when needed)"] = _cached(folder)
    parts = [
        Removable(description=description, paths=tuple(paths), bytes=_bytes(paths))
        for description, places in candidates.items()
        if (paths := [path for path in places if path.exists() and not _linked(folder, path)])
    ]
    return [part for part in parts if part.bytes]


def clean(folder: RunFolder, *, everything: bool = False, cache: bool = False) -> list[Removable]:
    """Remove what can be removed, under the journal's lock, and return it.

    Raises:
        RunError: a process is working on the run.
    """
    with Journal(folder.journal):
        parts = removable(folder, everything=everything, cache=cache)
        for path in (path for part in parts for path in part.paths):
            if path.is_dir():
                shutil.rmtree(path)  # removes links instead of following them
            else:
                path.unlink()
    return parts


def _checkpoints(folder: RunFolder, state: RunState) -> list[Path]:
    """Return the folders SESSION/TRIAL that no trial resumes from, or whole SESSION folders."""
    kept = {
        Path(checkpoint.path).parent.as_posix()
        for trial in state.trials.values()
        if trial.end is None
        for checkpoint in trial.checkpoints
    }
    removable_folders = []
    for session in _inside(folder.checkpoints):
        trials = [path.relative_to(folder.checkpoints).as_posix() for path in _inside(session)]
        if kept.isdisjoint(trials):
            removable_folders.append(session)
        else:
            removable_folders += [folder.checkpoints / name for name in trials if name not in kept]
    return removable_folders


def _stopped(folder: RunFolder, state: RunState) -> list[Path]:
    # A trial stopped at the rung before the last can be a member of an ensemble.
    late = state.rungs[-2:][0] if state.rungs else math.inf
    ended = [
        trial
        for trial in state.trials.values()
        if trial.status == "failed" or (trial.status == "pruned" and (trial.rung or 0) < late)
    ]
    places = [folder.trial(trial.name) for trial in ended]
    return [place / WEIGHTS for place in places if (place / "record.json").is_file()]


def _students_work(folder: RunFolder) -> list[Path]:
    students = [path for path in folder.root.glob("student*") if not path.is_symlink()]
    return [
        path / "work"
        for path in students
        if all((path / name).is_file() for name in FINISHED_FILES)
    ]


def _temporary(folder: RunFolder) -> list[Path]:
    """Return the temporary files that killed processes left behind (`common.files`)."""
    return [
        path
        for place in (folder.root, folder.student, folder.ledger, *_inside(folder.root / "trials"))
        for path in _inside(place)
        if _TEMPORARY.fullmatch(path.name) and path.is_file()
    ]


def _cached(folder: RunFolder) -> list[Path]:
    """Return the decoded images of this run's data set."""
    started = read_state(folder.journal).started
    return [] if started is None else find_entries(started.fingerprint)


def _linked(folder: RunFolder, path: Path) -> bool:
    """Return whether `path`, or a folder between it and the run's, is a symbolic link."""
    if not path.is_relative_to(folder.root):
        return path.is_symlink()
    between = [path, *path.parents]
    return any(part.is_symlink() for part in between[: between.index(folder.root)])


def _inside(folder: Path) -> list[Path]:
    """Return the entries of a folder, by name; none if it is a link or not a folder."""
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
                continue  # a running sweep removed it
            if stat.S_ISREG(status.st_mode):
                yield status.st_size


_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")
"""Names that `tempfile` makes from `.NAME.`."""
