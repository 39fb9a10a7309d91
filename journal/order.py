"""The order of events: the journal accepts nothing out of order and nothing twice."""

from collections.abc import Collection, Mapping

from journal.events import (
    PREPARATION,
    CheckpointSaved,
    EpochEnded,
    Event,
    Kind,
    RungDecided,
    RunStarted,
    StageReported,
    SweepEnded,
    TrialEnded,
    TrialEvent,
    TrialRetried,
    TrialStarted,
)
from journal.stages import Stage
from journal.trial import Trial


class OutOfOrderError(ValueError):
    """An event that cannot follow the events before it."""


def require_order(
    event: Event,
    *,
    started: bool,
    stages: Mapping[str, Stage],
    trials: Mapping[str, Trial],
    ended_kinds: Collection[Kind],
) -> None:
    """Check that `event` may follow the events that led to this state.

    `started` is true once the run has started; `ended_kinds` are the kinds of trials that ended.

    Raises:
        OutOfOrderError: the event comes too early, too late, or a second time.
    """
    match event:
        case RunStarted():
            objection = "the run has started already" if started else None
        case StageReported() if event.stage in PREPARATION or started:
            objection = _of_stage(stages.get(event.stage), event)
        case _ if not started:
            objection = "the run has not started"
        case SweepEnded():
            ended = event.kind in ended_kinds
            objection = f"the {event.kind} trials have ended already" if ended else None
        case TrialStarted():
            objection = _of_start(trials.get(event.trial), event)
        case EpochEnded() | RungDecided() | CheckpointSaved() | TrialRetried() | TrialEnded():
            objection = _of_trial(trials.get(event.trial), event)
        case _:
            objection = None
    if objection is not None:
        raise OutOfOrderError(f"{event.event}: {objection}")


def _of_stage(stage: Stage | None, event: StageReported) -> str | None:
    if stage is None:
        return f"there is no stage {event.stage!r}"
    if event.status in ("started", "skipped"):
        return f"{event.stage} is under way already" if stage.running else None
    return None if stage.running else f"{event.stage} is not under way"


def _of_start(trial: Trial | None, event: TrialStarted) -> str | None:
    expected = 1 if trial is None else trial.attempts + 1
    if trial is not None and trial.end is not None:
        return f"{event.trial} has ended"
    if event.attempt != expected:
        return f"attempt {event.attempt} of {event.trial}, not {expected}"
    return None


def _of_trial(trial: Trial | None, event: TrialEvent) -> str | None:
    if trial is None:
        return f"{event.trial} has not started"
    if trial.end is not None:
        return f"{event.trial} has ended"
    match event:
        case EpochEnded() if event.step != trial.step + 1:
            return f"step {event.step} of {event.trial} after step {trial.step}"
        case EpochEnded() if event.rung in trial.scores:
            return f"{event.trial} was scored at rung {event.rung} already"
        case RungDecided() if event.rung not in trial.scores:
            return f"{event.trial} was not scored at rung {event.rung}"
        case RungDecided() if event.rung in trial.decisions and not (
            trial.decisions[event.rung].decision == "pause" != event.decision
        ):
            return f"{event.trial} has its decision at rung {event.rung} already"
        case CheckpointSaved() if not 1 <= event.step <= trial.step:
            return f"a checkpoint of {event.trial} at step {event.step} after step {trial.step}"
        case CheckpointSaved() if any(event.path == known.path for known in trial.checkpoints):
            return f"{event.path} was saved already"
        case TrialRetried() if event.attempt != trial.attempts + 1:
            return f"attempt {event.attempt} of {event.trial}, not {trial.attempts + 1}"
        case TrialRetried() if event.attempt in trial.retries:
            return f"attempt {event.attempt} of {event.trial} was announced already"
        case TrialEnded() if event.kind != trial.kind:
            return f"{event.trial} is a {trial.kind} trial, not a {event.kind} trial"
        case _:
            return None
