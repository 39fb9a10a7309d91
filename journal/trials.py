"""One trial as its events describe it, and all trials of one kind taken together."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from common.stage_costs import StageCosts
from journal.events import (
    CheckpointSaved,
    EpochEnded,
    Kind,
    RungDecided,
    Status,
    TrialEnded,
    TrialStarted,
)


class Score(NamedTuple):
    """A trial's score on val at one epoch; None where a number is not finite."""

    val_nll: float | None
    val_accuracy: float | None
    temperature: float | None = None


NO_SCORE = Score(None, None)


class RungCount(NamedTuple):
    """Trials that arrived at one rung, continued from it, and were stopped there."""

    arrived: int
    continued: int
    stopped: int


@dataclass(slots=True, kw_only=True)
class Trial:
    """One trial of a run."""

    name: str
    number: int
    kind: Kind
    recipe: Mapping[str, Any]
    seed: int
    attempts: int = 0
    """Starts, the first included."""
    epochs: list[EpochEnded] = field(default_factory=list)
    """Epochs by step, from step 1."""
    scores: dict[int, Score] = field(default_factory=dict)
    """Scores by rung."""
    rung_steps: dict[int, int] = field(default_factory=dict)
    """Step at which it was scored, by rung."""
    decisions: dict[int, RungDecided] = field(default_factory=dict)
    """Decisions by rung."""
    retries: dict[int, str] = field(default_factory=dict)
    """Reason of each further attempt, by its number."""
    checkpoints: list[CheckpointSaved] = field(default_factory=list)
    """Oldest first."""
    end: TrialEnded | None = None
    """None while the trial is unfinished."""
    last_seen: float = -math.inf
    """Time of its last event."""
    last_lap: float | None = None
    """Time of the last epoch of this attempt."""

    @classmethod
    def of_start(cls, event: TrialStarted) -> "Trial":
        """Return a trial that has not run yet."""
        return cls(
            name=event.trial,
            number=event.number,
            kind=event.kind,
            recipe=event.recipe,
            seed=event.seed,
        )

    @property
    def status(self) -> Status | None:
        """Status that it ended with; None while it is unfinished."""
        return None if self.end is None else self.end.status

    @property
    def reason(self) -> str:
        """Reason for which it was pruned or failed; empty otherwise."""
        return "" if self.end is None else self.end.reason

    @property
    def step(self) -> int:
        """Epochs trained, cooldown branches included."""
        return len(self.epochs)

    @property
    def epoch(self) -> int:
        """Epoch of the schedule at that step."""
        return self.epochs[-1].epoch if self.epochs else 0

    @property
    def last_score(self) -> Score:
        """Score at the last step."""
        return score_of(self.epochs[-1]) if self.epochs else NO_SCORE

    @property
    def rung(self) -> int | None:
        """The highest rung it was scored at."""
        return max(self.scores, default=None)

    @property
    def score(self) -> Score | None:
        """Score at that rung."""
        return self.scores[max(self.scores)] if self.scores else None

    @property
    def rank(self) -> tuple[float, float, str]:
        """Sort key, best first: the highest rung, then the lowest val_nll there."""
        if self.score is None:
            return (math.inf, math.inf, self.name)
        nll = math.inf if self.score.val_nll is None else self.score.val_nll
        return (-max(self.scores), nll, self.name)

    @property
    def seconds(self) -> float:
        """Training time of all epochs."""
        return sum((epoch.seconds or 0.0 for epoch in self.epochs), 0.0)

    @property
    def peak_memory_bytes(self) -> int:
        """The most that its worker used."""
        return max((epoch.peak_memory_bytes or 0 for epoch in self.epochs), default=0)

    @property
    def images_per_second(self) -> float | None:
        """Speed of the last epoch."""
        return self.epochs[-1].images_per_second if self.epochs else None

    def pace(self, costs: StageCosts) -> float | None:
        """Return the mean seconds of an epoch of the last stage; None before any epoch."""
        cost = sum(costs.of_steps(epoch.epoch for epoch in self.epochs))
        return self.seconds / cost if cost else None


@dataclass(slots=True, kw_only=True)
class Cohort:
    """All trials of one kind."""

    best: Trial | None = None
    """Lowest val_nll at the highest rung that any of them reached."""
    seconds: float = 0.0
    """Wall time of the timed epochs."""
    timed_epochs: int = 0
    timed_cost: float = 0.0
    """Cost of the timed epochs; an epoch of the last stage costs 1."""
    ended: dict[Status, int] = field(default_factory=dict)
    """Trials by how they ended."""
    _counts: dict[int, list[int]] = field(default_factory=dict)
    """Trials that arrived, continued and were stopped, by rung."""

    @property
    def seconds_per_step(self) -> float | None:
        """Mean wall seconds of an epoch of the last stage, overheads included; None untimed."""
        return self.seconds / self.timed_cost if self.timed_cost else None

    def add_time(self, seconds: float, cost: float) -> None:
        """Count one epoch of a trial."""
        self.seconds += seconds
        self.timed_epochs += 1
        self.timed_cost += cost

    def add_score(self, trial: Trial, rung: int) -> None:
        """Count a trial that was just scored at a rung."""
        self._count(rung, 0)
        if self.best is None or trial.rank < self.best.rank:
            self.best = trial

    def add_decision(self, decision: RungDecided) -> None:
        """Count a trial that continues or stops at a rung."""
        self._count(decision.rung, 1 if decision.decision == "continue" else 2)

    def add_end(self, status: Status) -> None:
        """Count a trial that ended."""
        self.ended[status] = self.ended.get(status, 0) + 1

    def rung_counts(self, rungs: Iterable[int]) -> dict[int, RungCount]:
        """Return the counts at `rungs` and at every other rung with a trial, lowest first."""
        known = sorted({*rungs, *self._counts})
        return {rung: RungCount(*self._counts.get(rung, (0, 0, 0))) for rung in known}

    def _count(self, rung: int, column: int) -> None:
        self._counts.setdefault(rung, [0, 0, 0])[column] += 1


def score_of(event: EpochEnded) -> Score:
    """Return the score that an epoch reports."""
    return Score(event.val_nll, event.val_accuracy, event.temperature)
