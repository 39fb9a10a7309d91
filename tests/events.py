"""Build events in short calls; fields that a test does not set get sensible values."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from journal.events import EpochEnded, Event, Kind, RunStarted, TrialEnded, TrialStarted
from journal.state import RunState
from trainables.recipe import Recipe

E = TypeVar("E")

SPEC: Mapping[str, Any] = {"name": "digits", "rungs": [1, 3, 9], "trials": 3, "members": 2}


def run_started(time: float = 0.0, *, spec: Mapping[str, Any] = SPEC, **fields: Any) -> RunStarted:
    return RunStarted(time=time, run="r", spec=spec, **fields)


def trial_started(
    trial: str,
    time: float = 0.0,
    *,
    kind: Kind = "search",
    attempt: int = 1,
    recipe: Mapping[str, Any] | None = None,
    **fields: Any,
) -> TrialStarted:
    values = {"seed": 1, **fields}
    values.setdefault("number", int(trial[1:]) if trial[1:].isdigit() else 0)
    recipe = Recipe().to_mapping() if recipe is None else recipe
    return TrialStarted(trial=trial, time=time, kind=kind, attempt=attempt, recipe=recipe, **values)


def epoch(trial: str, step: int, time: float = 0.0, **fields: Any) -> EpochEnded:
    values = {"epoch": step, "val_nll": 1.0, "val_accuracy": 0.5, "seconds": 3.0, **fields}
    return EpochEnded(trial=trial, step=step, time=time, **values)


def trial_ended(
    trial: str, status: Any = "completed", time: float = 0.0, **fields: Any
) -> TrialEnded:
    return TrialEnded(trial=trial, status=status, time=time, **fields)


def state_of(*events: Event) -> RunState:
    """Return the state of a run that started before `events`."""
    return RunState.from_events([run_started(), *events])


def of_type(events: Iterable[Event], kind: type[E]) -> list[E]:
    """Return the events of one type, in order."""
    return [event for event in events if isinstance(event, kind)]
