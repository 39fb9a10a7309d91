"""What is known of a run's trials, rungs and stages: the parts of `journal.progress.RunState`.

Each folds what an event says of it alone; `RunState` knows what concerns several. Times are
unix seconds.
"""

import math
from collections.abc import Iterable, Mapping
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

EPOCH_FIELDS = (
    "step", "epoch", "phase", "rung", "train_loss", "val_nll", "val_accuracy", "temperature", "lr",
    "seconds", "images_per_second", "peak_memory_bytes",
)  # fmt: skip
"""What an epoch event tells of a trial, and the columns of its curve."""


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
    kind: Kind = "search"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 0
    steps: set[int] = field(default_factory=set)
    """Those reported."""
    step: int = 0
    """Epochs trained, cooldown branches included."""
    epoch: int = 0
    """Epoch of the schedule at that step."""
    last: Score = NO_SCORE
    """As reported at the last step."""
    scores: dict[int, Score] = field(default_factory=dict)
    """By rung."""
    decisions: dict[int, str] = field(default_factory=dict)
    """By rung: `continue` or `stop`."""
    retries: dict[int, str] = field(default_factory=dict)
    """Reason of each further attempt, by its number."""
    outcome: Literal["completed", "pruned", "failed"] | None = None
    reason: str = ""
    images_per_second: float | None = None
    """As reported at the last step."""
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

    def start(self, event: Event) -> None:
        """An attempt begins; news of one that a later attempt has overtaken changes nothing."""
        attempt = int(event.get("attempt", 1))
        if attempt >= self.attempt:
            self.last_step = None
            self.attempt = attempt
            self.recipe = event.get("recipe", self.recipe)

    def retry(self, event: Event) -> None:
        """It failed, and there is to be a further attempt."""
        attempt = int(event.get("attempt", 2))
        self.retries[attempt] = str(event.get("reason", ""))
        self.last_step = None
        self.attempt = max(self.attempt, attempt)

    def report(self, event: Event) -> Score:
        """A step is through; returns what it reached."""
        step = int(event.get("step", 0))
        score = Score(finite(event.get("val_nll")), finite(event.get("val_accuracy")))
        self.steps.add(step)
        if step > self.step:
            self.step, self.last = step, score
            self.epoch = int(event.get("epoch", step))
            self.images_per_second = finite(event.get("images_per_second"))
        return score

    def lap(self, time: float, told: float | None, *, since: float) -> float | None:
        """Seconds of the step that ends now: those since its last one, overheads included.

        The first step of an attempt, or after a halt at `since`, counts with the seconds that
        it told: before it a worker may have started, which takes long and comes once.
        """
        last, self.last_step = self.last_step, time
        return told if last is None or last < since else max(0.0, time - last)

    def end(self, event: Event) -> None:
        """It is over."""
        self.outcome = event.get("status", "completed")
        self.reason = str(event.get("reason") or "")


@dataclass(slots=True, kw_only=True)
class Cohort:
    """The trials of one kind, taken together."""

    best: TrialState | None = None
    """Lowest val_nll at the highest rung that any of them has reached."""
    seconds: float = 0.0
    """Of the steps that were timed, together."""
    timed_steps: int = 0
    timed_cost: float = 0.0
    """In epochs of the last stage."""
    _counts: dict[int, list[int]] = field(default_factory=dict)
    """By rung: how many arrived, went on, were stopped."""

    @property
    def seconds_per_step(self) -> float | None:
        """Mean wall seconds of a trial's step, overheads included; None unobserved.

        Of a step that costs as much as one of the last stage: see common/stage_costs.py.
        """
        return self.seconds / self.timed_cost if self.timed_cost else None

    def time(self, seconds: float, cost: float) -> None:
        """One of them took so long for a step of this cost."""
        self.seconds += seconds
        self.timed_steps += 1
        self.timed_cost += cost

    def score(self, trial: TrialState, rung: int, score: Score) -> None:
        """One of them arrived at a rung."""
        if rung not in trial.decisions:
            self._count(rung, 0)
        trial.scores[rung] = score
        if self.best is None or trial.rank < self.best.rank:
            self.best = trial

    def decide(self, trial: TrialState, rung: int, decision: str) -> None:
        """One of them goes on or stops at a rung; its score there may be still to come."""
        if rung in trial.decisions:
            return
        if rung not in trial.scores:
            self._count(rung, 0)
        trial.decisions[rung] = decision
        self._count(rung, 1 if decision == "continue" else 2)

    def rung_counts(self, rungs: Iterable[int]) -> dict[int, RungCount]:
        """Of `rungs`, and of any other that a trial arrived at, from the lowest."""
        known = sorted({*rungs, *self._counts})
        return {rung: RungCount(*self._counts.get(rung, (0, 0, 0))) for rung in known}

    def _count(self, rung: int, column: int) -> None:
        self._counts.setdefault(rung, [0, 0, 0])[column] += 1


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

    def go_on(self, time: float, last: float) -> None:
        """Another process takes it up, if the one last heard of at `last` left it open."""
        if self.open and self.started is not None:
            self.earlier_seconds += max(0.0, last - self.started)
            self.started = time

    def apply(self, event: Event, time: float) -> bool:
        """Fold an event of this stage in; whether it was news."""
        status: StageStatus = event.get("status", "progress")
        over = status in ("finished", "skipped")
        if (time, over) < self.seen:
            return False
        if self.started is None or (status == "started" and not self.open):
            self.started = time
        if over:
            self.ended = time
        self.status, self.seen = status, (time, over)
        self.fraction = finite(event.get("fraction"))
        self.detail = str(event.get("detail") or "")
        return True


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
