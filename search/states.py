"""What is known of a run's trials, rungs and stages: the parts of `search.progress.RunState`.

Times are unix seconds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Event = Mapping[str, Any]
Kind = Literal["search", "seed"]
TrialStatus = Literal["pending", "running", "completed", "pruned", "failed"]
StageStatus = Literal["pending", "started", "progress", "finished", "skipped"]

PREPARATION = ("data", "probe")
"""What comes before the chain, in a run that has it: reading images, measuring the machine."""
STAGES = ("sweep", "seeds", "select", "distill", "ledger", "report")
"""The chain, in order."""


class Score(NamedTuple):
    """What a trial reached at one rung or step."""

    val_nll: float | None
    val_accuracy: float | None


NO_SCORE = Score(None, None)


class RungCount(NamedTuple):
    """What happened at one rung, in trials of the search."""

    arrived: int
    continued: int
    stopped: int


@dataclass(slots=True, kw_only=True)
class TrialState:
    """One trial, as far as the journal tells."""

    name: str
    number: int | None = None
    kind: Kind = "search"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    attempt: int = 0
    steps: set[int] = field(default_factory=set)
    """Those reported."""
    step: int = 0
    """Epochs trained, cooldown branches included."""
    epoch: int = 0
    """Epoch of the schedule at that step."""
    phase: str = ""
    last: Score = NO_SCORE
    """As reported at the last step."""
    best_val_nll: float | None = None
    """Lowest of all steps."""
    best_val_accuracy: float | None = None
    """Highest of all steps."""
    scores: dict[int, Score] = field(default_factory=dict)
    """By rung."""
    decisions: dict[int, str] = field(default_factory=dict)
    """By rung: `continue` or `stop`."""
    retries: dict[int, str] = field(default_factory=dict)
    """Reason of each further attempt, by its number."""
    outcome: Literal["completed", "pruned", "failed"] | None = None
    reason: str = ""
    seconds: float | None = None
    images_per_second: float | None = None
    """As reported at the last step."""
    whole_schedule: bool = False
    seen: float = -math.inf
    """Time of its last event."""
    last_step: float | None = None
    """When it last reported in this attempt."""

    @property
    def rung(self) -> int | None:
        """The highest rung it was scored at."""
        return max(self.scores, default=None)

    @property
    def score(self) -> Score | None:
        """Its score at that rung."""
        return self.scores[max(self.scores)] if self.scores else None

    @property
    def rank(self) -> tuple[float, float, str]:
        """Sorts the best first: the highest rung, then the lowest val_nll there."""
        if self.score is None:
            return (math.inf, math.inf, self.name)
        nll = math.inf if self.score.val_nll is None else self.score.val_nll
        return (-max(self.scores), nll, self.name)


@dataclass(slots=True, kw_only=True)
class StageState:
    """One stage of the chain."""

    status: StageStatus = "pending"
    fraction: float | None = None
    """How much of it is done, in [0, 1], where it says."""
    detail: str = ""
    started: float | None = None
    """When it began, or began again after a resume."""
    ended: float | None = None
    earlier_seconds: float = 0.0
    """Spent on it before the last resume."""
    seen: tuple[float, bool] = (-math.inf, False)
    """Time of its last event; of two at one time, the one that ends it is the last."""

    @property
    def open(self) -> bool:
        """It has begun and not ended."""
        return self.status in ("started", "progress")

    def seconds(self, now: float) -> float | None:
        """Wall time spent on it; None before it begins."""
        if self.started is None:
            return None
        end = now if self.open or self.ended is None else self.ended
        return self.earlier_seconds + max(0.0, end - self.started)


@dataclass(slots=True, kw_only=True)
class Clock:
    """Wall time spent on a run by one process after the other, the pauses left out."""

    began: float | None = None
    """When the last process began."""
    earlier_seconds: float = 0.0
    """Of those before it."""

    def begin(self, time: float, last: float) -> None:
        """A process begins at `time`; the one before it was last heard of at `last`."""
        if self.began is not None and time >= last:
            self.earlier_seconds += last - self.began
        self.began = max(time, self.began or time)

    def seconds(self, now: float) -> float:
        """Spent so far."""
        return 0.0 if self.began is None else self.earlier_seconds + max(0.0, now - self.began)


def finite(value: object) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
