"""What a journal says about the trials of a run: all that a resumed sweep starts from.

A fold: the state after some events follows from those events alone, and repeated reports
(of an epoch, a decision, an end) change nothing. `journal.progress` answers what a person
asks of a run; this answers what the sweep itself asks.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from common.stage_costs import EQUAL, StageCosts
from journal.states import Kind
from trainables.records import Status


@dataclass(slots=True, kw_only=True)
class TrialHistory:
    """One trial so far."""

    trial: str
    number: int
    kind: Kind
    recipe: dict[str, Any]
    seed: int
    attempts: int = 0
    """Starts, the first included: after a failure or by a resumed sweep."""
    retries: int = 0
    """Starts because of a failure."""
    steps: dict[int, int] = field(default_factory=dict)
    """Epochs reported, cooldown branches included: by step, the epoch of the schedule."""
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    scores: dict[int, dict[str, float]] = field(default_factory=dict)
    """By rung: val_nll, val_accuracy and temperature, as far as they are finite."""
    rung_steps: dict[int, int] = field(default_factory=dict)
    """By rung: the step at whose end it was scored."""
    decisions: dict[int, Literal["continue", "stop"]] = field(default_factory=dict)
    """By rung."""
    checkpoints: list[tuple[int, str]] = field(default_factory=list)
    """Step and path, oldest first."""
    status: Status | None = None
    """How it ended; None while it has not."""

    @property
    def rung(self) -> int | None:
        """The highest rung it was scored at."""
        return max(self.scores, default=None)

    def pace(self, costs: StageCosts) -> float | None:
        """Seconds of an epoch of the last stage: the mean over its epochs by their costs."""
        cost = sum(costs.of_steps(epoch for _, epoch in sorted(self.steps.items())))
        return self.seconds / cost if cost else None


class History:
    """All trials of a run, by name, in the order of their first start."""

    def __init__(self, events: Iterable[Mapping[str, Any]] = ()) -> None:
        """The state after `events`."""
        self.trials: dict[str, TrialHistory] = {}
        self.last_end: dict[Kind, str] = {}
        """Why the last sweep of each kind ended."""
        self.costs = EQUAL
        """Of the epochs of a trial, by the last plan."""
        for event in events:
            self.apply(event)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Fold one event in."""
        name = event["event"]
        if name == "plan":
            self.costs = StageCosts.of_event(event)
        elif name == "sweep_ended":
            self.last_end[event["kind"]] = event["reason"]
        elif name == "trial_started":
            self._start(event)
        elif event.get("trial") in self.trials:
            trial = self.trials[event["trial"]]
            if name == "epoch":
                _epoch(trial, event)
            elif name == "decision":
                trial.decisions.setdefault(event["rung"], event["decision"])
            elif name == "checkpoint":
                trial.checkpoints.append((event["step"], event["path"]))
            elif name == "trial_retried":
                trial.retries += 1
            elif name == "trial_ended":
                trial.status = event["status"]

    def of(self, kind: Kind) -> list[TrialHistory]:
        """The trials of one kind, by number."""
        return sorted(
            (trial for trial in self.trials.values() if trial.kind == kind),
            key=lambda trial: trial.number,
        )

    def unfinished(self, kind: Kind) -> list[TrialHistory]:
        """Trials that were started and have not ended, by number."""
        return [trial for trial in self.of(kind) if trial.status is None]

    def count(self, kind: Kind, status: str | None) -> int:
        """How many trials of a kind ended like this; None counts the unfinished."""
        return sum(trial.status == status for trial in self.of(kind))

    def pace(self, recipe: Mapping[str, Any] | None = None) -> float | None:
        """Seconds of an epoch of the last stage: the median over trials, of this recipe if any."""
        paces = [(trial.recipe == recipe, trial.pace(self.costs)) for trial in self.trials.values()]
        known = [(same, pace) for same, pace in paces if pace is not None]
        own = [pace for same, pace in known if same]
        return median(own or [pace for _, pace in known]) if known else None

    def _start(self, event: Mapping[str, Any]) -> None:
        trial = self.trials.setdefault(
            event["trial"],
            TrialHistory(
                trial=event["trial"],
                number=event["number"],
                kind=event["kind"],
                recipe=event["recipe"],
                seed=event["seed"],
            ),
        )
        trial.attempts = max(trial.attempts, event["attempt"])


def _epoch(trial: TrialHistory, event: Mapping[str, Any]) -> None:
    if event["step"] in trial.steps:
        return
    trial.steps[event["step"]] = event.get("epoch", event["step"])
    trial.seconds += event["seconds"] or 0.0
    trial.peak_memory_bytes = max(trial.peak_memory_bytes, event["peak_memory_bytes"] or 0)
    if event["rung"] is not None:
        trial.rung_steps[event["rung"]] = event["step"]
        trial.scores[event["rung"]] = {
            key: event[key]
            for key in ("val_nll", "val_accuracy", "temperature")
            if event[key] is not None and math.isfinite(event[key])
        }
