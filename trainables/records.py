"""What a run leaves on disk: its folder, and the write-once record of every trial.

A trial's folder holds `start.json` (all that is needed to train it again), the
log-probabilities `val.npy` and `holdout.npy` (float32 [N, K]), `weights.safetensors`,
and at the very end `record.json`. A trial without `record.json` is not finished.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import RunError
from common.files import file_sha256, read_versioned, write_json_once
from common.parsing import to_mapping
from journal.events import Kind, Status
from trainables.recipe import Numerics, Recipe

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStart:
    """All that is needed to train a trial again. Written before its first epoch."""

    schema: int = SCHEMA
    trial: str
    """Unique within the run, e.g. `t0017` (search) or `s03` (a seed of the best)."""
    kind: Kind
    recipe: Recipe
    seed: int
    rungs: tuple[int, ...]
    """Epoch budgets at which the trial is scored; the last one is the recipe's epochs."""
    data: dict[str, Any]
    """The data set's specification and its fingerprint."""
    split_id: str
    numerics: Numerics
    code_version: str
    machine: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """How a trial ended. Written once, last."""

    schema: int = SCHEMA
    trial: str
    kind: Kind
    status: Status
    reason: str = ""
    """Why it was pruned or failed, in one line."""
    split_id: str
    steps: int
    """Epochs trained, cooldown branches included."""
    rung: int | None
    """The highest rung it was scored at."""
    whole_schedule: bool
    """It reached the last rung: the condition for the pool."""
    seconds: float
    peak_memory_bytes: int
    params: int
    metrics: dict[str, float] = field(default_factory=dict)
    """val_nll, val_accuracy, temperature … at the highest rung."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Checksums of the files beside the record."""


class RunFolder:
    """The paths of one run. Creating the object touches nothing."""

    def __init__(self, root: str | Path) -> None:
        """`root` is `runs/NAME`."""
        self.root = Path(root)

    def __fspath__(self) -> str:
        """The folder itself."""
        return str(self.root)

    @property
    def name(self) -> str:
        """The run's name: the last part of its path."""
        return self.root.resolve().name

    @property
    def sweep(self) -> Path:
        """The resolved specification, write-once."""
        return self.root / "sweep.yaml"

    @property
    def journal(self) -> Path:
        """The append-only truth of the run."""
        return self.root / "journal.jsonl"

    @property
    def labels(self) -> Path:
        """The labels of `val` and `holdout`, int64 [N] each, so selection needs no images."""
        return self.root / "labels.npz"

    @property
    def skipped(self) -> Path:
        """The images that cannot be read and were left out, one a line; absent if all can."""
        return self.root / "skipped.txt"

    @property
    def optuna(self) -> Path:
        """Optuna's own journal, a projection."""
        return self.root / "optuna.journal"

    @property
    def checkpoints(self) -> Path:
        """What Tune stores while trials run."""
        return self.root / "checkpoints"

    @property
    def selection(self) -> Path:
        """The frozen ensemble."""
        return self.root / "selection.json"

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
        """The folder of one trial. Refuses names that would leave the run's folder."""
        if not trial or trial != Path(trial).name or trial.startswith("."):
            raise RunError(f"{trial!r} is not the name of a trial")
        return self.root / "trials" / trial

    def starts(self) -> Iterator[TrialStart]:
        """Every trial that was started, in order of name."""
        for path in sorted(self.root.glob("trials/*/start.json")):
            yield read_start(path)

    def records(self) -> Iterator[TrialRecord]:
        """Every trial that ended, in order of name."""
        for path in sorted(self.root.glob("trials/*/record.json")):
            yield read_record(path)

    def require(self) -> "RunFolder":
        """Itself, or a clear error if no run is there."""
        if not self.sweep.is_file():
            raise RunError(f"no run at {str(self.root)!r}: it has no sweep.yaml")
        return self


def write_start(folder: Path, start: TrialStart) -> None:
    """Write start.json; an identical one already there is left as it is."""
    write_json_once(folder / "start.json", to_mapping(start))


def read_start(path: Path) -> TrialStart:
    """Read a start.json, of any schema version so far."""
    return read_versioned(TrialStart, path, schema=SCHEMA)


def write_record(folder: Path, record: TrialRecord) -> None:
    """Write record.json, with the checksums of the files beside it."""
    sums = {
        path.name: file_sha256(path)
        for path in sorted(folder.iterdir())
        if path.suffix in (".npy", ".safetensors")
    }
    write_json_once(folder / "record.json", {**to_mapping(record), "sha256": sums})


def read_record(path: Path) -> TrialRecord:
    """Read a record.json, of any schema version so far."""
    return read_versioned(TrialRecord, path, schema=SCHEMA)
