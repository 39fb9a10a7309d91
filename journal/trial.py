"""One trial of a run, as its events describe it."""

import math
from collections.abc import Mapping
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


@dataclass(slots=True, kw_only=True)
class Trial:
    """One trial of a run."""

    name: str
    number: int
    kind: Kind
    recipe: Mapping[str, Any]
    seed: int
    attempts: int = 0
    """Number of starts, including the first."""
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
    failure_peak_bytes: int = 0
    """Largest peak memory of an attempt that ran out of memory."""
    retry_step: int | None = None
    """Epochs trained before the last further attempt; None if there was none."""
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
    def family(self) -> str:
        """Family of the sweep's space that its recipe comes from; empty without families."""
        return str(self.recipe.get("family", ""))

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
    def paused(self) -> bool:
        """True if it has not ended, and had no time to go on from its highest rung."""
        decision = self.decisions.get(self.rung or 0)
        return self.end is None and decision is not None and decision.decision == "pause"

    @property
    def shortened_to(self) -> int | None:
        """The last rung of its schedule, if that was shortened to end in time."""
        return self.epochs[-1].shortened_to if self.epochs else None

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
        """Sort key, best first: the highest rung, then the lowest val_nll at it."""
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
        """Peak memory of its worker, including attempts that ran out of memory."""
        epochs = (epoch.peak_memory_bytes or 0 for epoch in self.epochs)
        return max(self.failure_peak_bytes, max(epochs, default=0))

    @property
    def images_per_second(self) -> float | None:
        """Speed of the last epoch."""
        return self.epochs[-1].images_per_second if self.epochs else None

    def pace(self, costs: StageCosts) -> float | None:
        """Return the mean seconds of an epoch of the last stage; None before any epoch."""
        seconds, cost = self.timed(costs)
        return seconds / cost if cost else None

    def timed(self, costs: StageCosts) -> tuple[float, float]:
        """Return the seconds of its epochs, and their cost in epochs of the last stage.

        Epochs that include the features below a head count only if there are no others: a worker
        that has the features from another trial takes no time for them.
        """
        epochs = [epoch.epoch for epoch in self.epochs]
        alone = tuple(costs.without_entries.of_steps(epochs))
        timed = list(zip(self.epochs, costs.of_steps(epochs), alone, strict=True))
        timed = [each for each in timed if each[1] == each[2]] or timed
        seconds = sum((epoch.seconds or 0.0 for epoch, _, _ in timed), 0.0)
        return seconds, sum((cost for _, cost, _ in timed), 0.0)


def score_of(event: EpochEnded) -> Score:
    """Return the score that an epoch reports."""
    return Score(event.val_nll, event.val_accuracy, event.temperature)
