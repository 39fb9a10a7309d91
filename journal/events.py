"""The fifteen kinds of event that make up a run's journal, each a frozen dataclass.

`encode` gives the JSON object of an event, `decode` the event of a JSON object. Field names
are the keys in journal.jsonl. Numbers that are not finite are written as null and read as
None. Times are unix seconds, durations wall-clock seconds, sizes bytes.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from common.stage_costs import EQUAL, StageCosts

Kind = Literal["search", "seed"]
"""Trials of the search, or further seeds of its best configuration."""
Status = Literal["completed", "pruned", "failed"]
"""End of a trial."""
Cause = Literal["recipe", "machine"]
"""Cause of a failure. `recipe`: training diverged, a score was not finite, memory ran out, or the
values are impossible, so that the same recipe would fail again. `machine`: anything else, e.g. a
lost worker."""
Action = Literal["continue", "stop", "pause"]
"""`pause`: a resumed run decides again, and the trial keeps its checkpoint until then."""
Reason = Literal["promoted", "above_cutoff", "last_rung", "not_finite", "no_time"]
"""Reason to continue (`promoted`), to pause (`no_time`) or to stop at a rung."""

EndReason = Literal["finished", "time_budget", "disk", "interrupted"]
"""Reason for which trials of a kind end: all are done, the time or the disk space is used up, or
the user interrupted them."""

PREPARATION = ("data", "probe")
"""Stages before the journal is open: reading images, measuring the machine."""
STAGES = ("sweep", "seeds", "select", "distill", "ledger", "report")
"""Stages of the chain, in order."""

UNSTAMPED = math.nan
"""The time of an event that has not been journalled: the journal sets it."""


LEFT_OUT_WHEN_NONE = {"left_out_when_none": True}


def _left_out_when_none() -> Any:
    return field(default=None, metadata=LEFT_OUT_WHEN_NONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The first event of every journal."""

    event: ClassVar[Literal["run_started"]] = "run_started"
    schema: int = 1
    """Version of the records' format."""
    spec: Mapping[str, Any]
    """The specification, with planned schedules."""
    split_id: str = ""
    fingerprint: str = ""
    """Hash of the images and labels."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Examples in each split."""
    class_names: tuple[str, ...] = ()
    image_size: int | None = None
    """Side of the training images, in pixels."""
    skipped: int = 0
    """Unreadable images that were left out."""
    notes: tuple[str, ...] | None = _left_out_when_none()
    """Sentences on files that were left out, merged or read in part, and on classes with too few
    examples for a split; None if there are none."""
    weights: Mapping[str, str | None] = field(default_factory=dict)
    """SHA-256 of each file of initial weights; None for a missing file."""
    asked: Mapping[str, Any] | None = _left_out_when_none()
    """The specification as the user gave it, before planning."""
    settings: tuple[Mapping[str, Any], ...] | None = _left_out_when_none()
    """Changes that options made to the sweep's file, as nested mappings; None in journals of
    earlier versions."""
    time_budget: float | None = _left_out_when_none()
    """Seconds that the command was given; None for no budget, and in journals of earlier
    versions."""
    run: str
    """Name of the run's folder."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    code_version: str = ""
    command: str | None = _left_out_when_none()
    """The command line, if known."""
    address: str | None = _left_out_when_none()
    """The Ray cluster that the run joined, as the user named it; None for this machine."""
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResumed:
    """Another process opened the run."""

    event: ClassVar[Literal["run_resumed"]] = "run_resumed"
    run: str
    machine: Mapping[str, Any] = field(default_factory=dict)
    code_version: str = ""
    data: str | None = _left_out_when_none()
    """Folder of the images, if it has moved since the last start or resume."""
    disk_gb: float | None = _left_out_when_none()
    """Disk space that the run may take from now on, if it has changed."""
    address: str | None = _left_out_when_none()
    """The Ray cluster that this process joined; None for its own machine."""
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanMade:
    """A forecast of the run's stages, or a revision of it."""

    event: ClassVar[Literal["plan"]] = "plan"
    at: str
    """The stage that follows."""
    rungs: tuple[int, ...] = ()
    """In epochs."""
    trials: int | None = None
    """None: as many as the time budget allows."""
    seeds: int = 0
    student_epochs: int = 0
    workers: int = 1
    """Trials at a time."""
    epoch_seconds: float | None = None
    """One epoch of the base recipe's last stage while all workers are busy."""
    stage_costs: StageCosts = EQUAL
    """Relative cost of epochs in the recipe's stages."""
    family_costs: Mapping[str, StageCosts] = field(default_factory=dict)
    """The same for each family of the sweep, in the same unit."""
    seconds: Mapping[str, float]
    """Forecast for each stage."""
    deadline: float | None = None
    """Unix seconds; None without a time budget."""
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReported:
    """A stage started, made progress, finished or was skipped."""

    event: ClassVar[Literal["stage"]] = "stage"
    stage: str
    status: Literal["started", "progress", "finished", "skipped"]
    fraction: float | None = None
    """Share of the stage that is done, in [0, 1]; None if unknown."""
    detail: str = ""
    trials: int | None = _left_out_when_none()
    """Trials that the sweep will train, if it differs from the specification."""
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStarted:
    """A trial was handed to a worker, for the first time or again."""

    event: ClassVar[Literal["trial_started"]] = "trial_started"
    trial: str
    number: int
    kind: Kind
    recipe: Mapping[str, Any]
    seed: int
    attempt: int
    """1 for the first start, 2 for the second, and so on."""
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnded:
    """A trial trained one more epoch and was scored on val."""

    event: ClassVar[Literal["epoch"]] = "epoch"
    trial: str
    step: int
    """Epochs trained so far, cooldown branches included."""
    epoch: int
    """Epoch of the schedule."""
    phase: str = "trunk"
    """`trunk` or `cooldown`."""
    rung: int | None = None
    """The epoch budget that this epoch completes, if any."""
    train_loss: float | None = None
    val_nll: float | None = None
    val_accuracy: float | None = None
    temperature: float | None = None
    """Fitted on val."""
    lr: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    peak_memory_bytes: int | None = None
    shortened_to: int | None = _left_out_when_none()
    """The last rung of the trial's schedule, if it was shortened to end in time."""
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class RungDecided:
    """ASHA decided on a trial that was scored at a rung."""

    event: ClassVar[Literal["decision"]] = "decision"
    trial: str
    rung: int
    value: float | None
    """val_nll at the rung; None if it is not finite."""
    decision: Action
    cutoff: float | None
    """The highest score that continues; None if the score was not compared."""
    reason: Reason
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved:
    """A checkpoint of a running trial reached the storage."""

    event: ClassVar[Literal["checkpoint"]] = "checkpoint"
    trial: str
    step: int
    path: str
    """Below the storage's root: SESSION/TRIAL/CHECKPOINT."""
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRetried:
    """A trial failed and will be started again."""

    event: ClassVar[Literal["trial_retried"]] = "trial_retried"
    trial: str
    attempt: int
    """Number of the coming attempt."""
    reason: str
    peak_memory_bytes: int | None = _left_out_when_none()
    """Peak memory up to the failure, if memory ran out and the worker could still say."""
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded:
    """A trial completed its schedule, was pruned at a rung, or failed."""

    event: ClassVar[Literal["trial_ended"]] = "trial_ended"
    trial: str
    kind: Kind = "search"
    status: Status
    reason: str = ""
    seconds: float | None = None
    """Training time of all epochs."""
    steps: int = 0
    rung: int | None = None
    """The highest rung it was scored at."""
    whole_schedule: bool = False
    traceback: str | None = None
    cause: Cause | None = field(default=None, metadata=LEFT_OUT_WHEN_NONE)
    """Cause of a failure; None if the trial did not fail."""
    peak_memory_bytes: int | None = _left_out_when_none()
    """Peak memory up to the failure, if memory ran out and the worker could still say."""
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepEnded:
    """All trials of one kind are done, the time ran out, or the user interrupted them."""

    event: ClassVar[Literal["sweep_ended"]] = "sweep_ended"
    kind: Kind
    reason: EndReason
    trials: int = 0
    """Trials of this kind that have ended."""
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRead:
    """The test split is about to be read."""

    __test__: ClassVar[bool] = False  # pytest would collect the class
    event: ClassVar[Literal["test_read"]] = "test_read"
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultReported:
    """A stage has a result: ensemble, student, ledger or ablation."""

    event: ClassVar[Literal["result"]] = "result"
    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    folder: str | None = None
    """Below the run's folder."""
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRegistered:
    """The released student entered the model registry."""

    event: ClassVar[Literal["registered"]] = "registered"
    name: str
    version: int
    alias: str
    """`champion` or `candidate`."""
    reason: str = ""
    time: float = UNSTAMPED


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverFailed:
    """An observer raised its first exception; it still gets later events."""

    event: ClassVar[Literal["observer_failed"]] = "observer_failed"
    reason: str
    time: float = UNSTAMPED


TrialEvent = TrialStarted | EpochEnded | RungDecided | CheckpointSaved | TrialRetried | TrialEnded
Event = (
    RunStarted
    | RunResumed
    | PlanMade
    | StageReported
    | TrialEvent
    | SweepEnded
    | TestRead
    | ResultReported
    | ModelRegistered
    | ObserverFailed
)

EVENT_TYPES: Mapping[str, type[Event]] = {cls.event: cls for cls in get_args(Event)}
"""The class of each kind of event, by its name in the journal."""

EPOCH_FIELDS = tuple(
    f.name
    for f in dataclasses.fields(EpochEnded)
    if f.name not in ("trial", "shortened_to", "time")
)
"""Fields that a worker reports after each epoch, and the columns of a trial's curve."""


def encode(event: Event) -> dict[str, Any]:
    """Return an event as the JSON object of its line; non-finite numbers become null."""
    fields = {"event": event.event}
    for item in dataclasses.fields(event):
        value = getattr(event, item.name)
        if value is not None or not item.metadata.get("left_out_when_none"):
            fields[item.name] = _plain(value)
    return fields


def decode(line: Mapping[str, Any]) -> Event:
    """Return the event of a JSON object; keys that this version does not know are ignored.

    Raises:
        ValueError: the kind of event is unknown, or a field is missing.
    """
    name = line.get("event")
    cls = EVENT_TYPES.get(str(name))
    if cls is None:
        raise ValueError(f"unknown kind of event {name!r}: it was written by a newer version")
    values = {key: line[key] for key in _FIELDS[cls] if key in line}
    for key in _REQUIRED[cls] - values.keys():
        raise ValueError(f"the event {name!r} lacks the field {key!r}")
    for key in ("rungs", "class_names", "notes", "settings"):
        if values.get(key) is not None:
            values[key] = tuple(values[key])
    if "stage_costs" in values:
        values["stage_costs"] = _stage_costs(values["stage_costs"])
    if "family_costs" in values:
        families = values["family_costs"].items()
        values["family_costs"] = {name: _stage_costs(costs) for name, costs in families}
    return cls(**values)


def _stage_costs(costs: Mapping[str, Any] | None) -> StageCosts:
    return StageCosts(**{key: tuple(values) for key, values in (costs or {}).items()})


_FIELDS = {
    cls: tuple(item.name for item in dataclasses.fields(cls)) for cls in EVENT_TYPES.values()
}
_REQUIRED = {
    cls: frozenset(
        item.name
        for item in dataclasses.fields(cls)
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    )
    | {"time"}
    for cls in EVENT_TYPES.values()
}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
