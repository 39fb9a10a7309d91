"""The run's folder on disk, and the write-once record of every trial.

A trial's folder holds `start.json` (everything needed to train it again), the
log-probabilities `val.npy` and `holdout.npy` (float32 [N, K]), `weights.safetensors`,
and last `record.json`. A trial without `record.json` is unfinished.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import RunError
from common.files import NO_FILES, file_sha256, read_versioned, write_json_once
from common.parsing import from_mapping, to_mapping
from journal.events import Cause, Kind, Status
from trainables.recipe import Numerics, Recipe

SCHEMA = 1

WEIGHTS = "weights.safetensors"
"""The file with the weights of the scored network, in a trial's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStart:
    """Everything needed to train a trial again; written before its first epoch."""

    schema: int = SCHEMA
    trial: str
    """Name within the run, e.g. `t0017` (search) or `s03` (another seed of the best recipe)."""
    kind: Kind
    recipe: Recipe
    seed: int
    rungs: tuple[int, ...]
    """Epoch budgets at which the trial is scored; the last one is the recipe's epochs."""
    data: dict[str, Any]
    """Specification and fingerprint of the data set."""
    split_id: str
    numerics: Numerics
    code_version: str
    machine: dict[str, Any]
    weights: dict[str, str | None] | None = None
    """SHA-256 of the initial weights by name: a path, or package and file. Empty for random
    weights and the hub's; None in records of versions that did not write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """The result of a trial; written once, last."""

    schema: int = SCHEMA
    trial: str
    kind: Kind
    status: Status
    reason: str = ""
    """Reason for pruning or failure, in one line."""
    cause: Cause | None = None
    """Cause of a failure; None for other trials, and in records of earlier versions."""
    split_id: str
    steps: int
    """Epochs trained, cooldown branches included."""
    rung: int | None
    """The highest rung at which the trial was scored."""
    whole_schedule: bool
    """True if the trial reached its last rung; a pool needs one such trial at least."""
    seconds: float
    peak_memory_bytes: int
    params: int
    metrics: dict[str, float] = field(default_factory=dict)
    """Scores at the highest rung: val_nll, val_accuracy, temperature …"""
    halvings: tuple[tuple[int, int], ...] = ()
    """Epochs trained, and steps of the next epoch, before micro-batches were halved because memory
    had run out; a replay halves at the same steps."""
    numerics: Numerics | None = None
    """Numerics of the training, chosen where it ran; None in records of earlier versions and for
    trials without results."""
    machine: dict[str, Any] | None = None
    """The machine that trained it last; None as for `numerics`."""
    rungs: tuple[int, ...] | None = None
    """Its rungs, if its schedule was shortened to end in time; None if they are start.json's."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Checksums of the files beside the record, and of weights that are not kept."""


def trained_recipe(start: TrialStart, record: TrialRecord) -> Recipe:
    """Return the recipe that a trial was trained with, whose schedule may have been shortened."""
    rungs = record.rungs or start.rungs
    return start.recipe.with_values(epochs=rungs[-1])


class RunFolder:
    """The paths of one run. Creating the object reads and writes no file."""

    def __init__(self, root: str | Path) -> None:
        """`root` is `runs/NAME`."""
        self.root = Path(root)

    def __repr__(self) -> str:
        """Return the folder's path, for notebooks."""
        return f"RunFolder({str(self.root)!r})"

    def __fspath__(self) -> str:
        """Return the folder as a string."""
        return str(self.root)

    @property
    def name(self) -> str:
        """The run's name: the last part of its path."""
        return self.root.resolve().name

    @property
    def sweep(self) -> Path:
        """The resolved specification of the sweep, written once."""
        return self.root / "sweep.yaml"

    @property
    def journal(self) -> Path:
        """The append-only log of events, from which the run's state is computed."""
        return self.root / "journal.jsonl"

    @property
    def labels(self) -> Path:
        """Labels of `val` and `holdout`, int64 [N] each, so that selection needs no images."""
        return self.root / "labels.npz"

    @property
    def skipped(self) -> Path:
        """Unreadable images that were left out, one per line; absent if there are none."""
        return self.root / "skipped.txt"

    @property
    def optuna(self) -> Path:
        """Optuna's journal, which can be rebuilt from the run's journal."""
        return self.root / "optuna.journal"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints that Tune stores while trials run."""
        return self.root / "checkpoints"

    @property
    def selection(self) -> Path:
        """The frozen ensemble."""
        return self.root / "selection.json"

    @property
    def costs(self) -> Path:
        """The costs of the pool's networks, measured before the selection."""
        return self.root / "costs.json"

    @property
    def student(self) -> Path:
        """The student's folder."""
        return self.root / "student"

    @property
    def ledger(self) -> Path:
        """The folder of ledger.json, ledger.csv and test_logprobs.npz."""
        return self.root / "ledger"

    @property
    def figures(self) -> Path:
        """The folder of the report's figures."""
        return self.root / "figures"

    @property
    def report(self) -> Path:
        """The report."""
        return self.root / "report.pdf"

    def trial(self, trial: str) -> Path:
        """Return the folder of a trial; refuse names that lead out of the run's folder."""
        if not trial or trial != Path(trial).name or trial.startswith("."):
            raise RunError(f"{trial!r} is not the name of a trial; names are like 't0017'")
        return self.root / "trials" / trial

    def starts(self) -> Iterator[TrialStart]:
        """Yield every trial that was started, ordered by name."""
        for path in sorted(self.root.glob("trials/*/start.json")):
            yield read_start(path)

    def records(self) -> Iterator[TrialRecord]:
        """Yield every trial that ended, ordered by name."""
        for path in sorted(self.root.glob("trials/*/record.json")):
            yield read_record(path)

    def require(self) -> "RunFolder":
        """Return the object itself, or raise a RunError if the folder holds no run."""
        if not self.sweep.is_file():
            raise RunError(f"no run at {str(self.root)!r}: it has no sweep.yaml")
        return self


def write_start(folder: Path, start: TrialStart) -> None:
    """Write start.json; an identical existing file is kept."""
    write_json_once(folder / "start.json", to_mapping(start))


def read_start(path: Path) -> TrialStart:
    """Read a start.json; one of another schema version raises RunError."""
    return read_versioned(TrialStart, path, schema=SCHEMA)


def start_to_text(start: TrialStart) -> str:
    """Return a trial's start as one line of JSON.

    Ray Tune copies and flattens a configuration many times, which costs nothing for a string.
    """
    return json.dumps(to_mapping(start), allow_nan=False)


def start_from_text(text: str) -> TrialStart:
    """Return the start that `start_to_text` wrote."""
    return from_mapping(TrialStart, json.loads(text), where="start")


def write_record(
    folder: Path,
    record: TrialRecord,
    files: Mapping[str, bytes] = NO_FILES,
    *,
    after: Callable[[], object] | None = None,
) -> None:
    """Write a trial's files of results, then record.json with their checksums.

    Checksums that the record already has, e.g. of weights that are not kept, stay in it. `files`
    replace those in the folder. All are on disk on return, and none has its name before `after` has
    returned (see `common.files.write_files`).
    """
    present = (path for path in sorted(folder.iterdir()) if path.name not in files)
    sums = {
        path.name: file_sha256(path) for path in present if path.suffix in (".npy", ".safetensors")
    }
    sums |= {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    value = {**to_mapping(record), "sha256": {**record.sha256, **sums}}
    write_json_once(folder / "record.json", value, beside=files, after=after)


def read_record(path: Path) -> TrialRecord:
    """Read a record.json; one of another schema version raises RunError."""
    return read_versioned(TrialRecord, path, schema=SCHEMA)
