"""What a run leaves on disk: its folder, and the write-once record of every trial.

A trial's folder holds `start.json` (all that is needed to train it again), the
log-probabilities `val.npy` and `holdout.npy` (float32 [N, K]), `weights.safetensors`,
and at the very end `record.json`. A trial without `record.json` is not finished.
"""

import hashlib
import io
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal, TypeVar

import numpy as np

from trainables.errors import RunError, SpecError
from trainables.parsing import from_mapping, to_mapping
from trainables.recipe import Numerics, Recipe

SCHEMA = 1

Status = Literal["completed", "pruned", "failed"]
Record = TypeVar("Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStart:
    """All that is needed to train a trial again. Written before its first epoch."""

    schema: int = SCHEMA
    trial: str
    """Unique within the run, e.g. `t0017` (search) or `s03` (a seed of the best)."""
    kind: Literal["search", "seed"]
    recipe: Recipe
    seed: int
    rungs: tuple[int, ...]
    """Epoch budgets at which the trial is scored; the last one is recipe.epochs."""
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
    kind: Literal["search", "seed"]
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
    return _read(TrialStart, path)


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
    return _read(TrialRecord, path)


def _read(cls: type[Record], path: Path) -> Record:
    mapping = read_json(path)
    if mapping.get("schema") != SCHEMA:
        raise RunError(f"{path}: schema {mapping.get('schema')!r}, this version reads {SCHEMA}")
    try:
        return from_mapping(cls, mapping, where=str(path))
    except SpecError as error:
        raise RunError(f"{error}; the file is damaged, or of another version") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or one clear error."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path} does not exist") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: expected an object, got {type(value).__name__}")
    return value


def write_json_once(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file that nobody has written before (or exactly so before).

    Raises:
        RunError: the file exists with other content.
    """
    data = dump_json(value).encode()
    if path.exists():
        if path.read_bytes() == data:
            return
        raise RunError(f"{path} is already written, with other content; records are write-once")
    write_bytes_atomically(path, data)


def dump_json(value: Mapping[str, Any]) -> str:
    """Indented JSON with a final newline; NaN and infinity are refused, not written."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write through a temporary file, fsync and rename: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write a .npy file whole or not at all; arrays of objects are refused."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes_atomically(path, buffer.getvalue())


def read_array(path: Path) -> np.ndarray[Any, Any]:
    """Read a .npy file; pickled objects are refused."""
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:
        raise RunError(f"{path} cannot be read as an array: {error}") from None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def machine_description() -> dict[str, Any]:
    """What the figures of a record depend on: processor, cores, memory, versions."""
    import psutil

    return {
        "processor": _processor(),
        "cores": len(psutil.Process().cpu_affinity() or []) or os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cpu_flags": sorted(_cpu_flags() & _TELLING_FLAGS),
    }


_TELLING_FLAGS = {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_int8"}


def _processor() -> str:
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _cpu_flags() -> set[str]:
    for line in _cpuinfo():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set()


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def code_version() -> str:
    """The distribution's version, and a digest of the code that trains."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("quorum-ensembles")
    except PackageNotFoundError:
        number = "0"
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return f"{number}+{digest.hexdigest()[:12]}"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
