"""All trials of one kind: counts, and the orders in which they are asked for.

Every order is kept up to date event by event, so that no question needs a scan of all trials.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from journal.events import RungDecided, Status, TrialEnded
from journal.trial import Trial

_rank = attrgetter("rank")
_number = attrgetter("number")


class RungCount(NamedTuple):
    """Trials that arrived at one rung, continued from it, and were stopped there."""

    arrived: int
    continued: int
    stopped: int


@dataclass(slots=True, kw_only=True)
class Cohort:
    """All trials of one kind."""

    trials: list[Trial] = field(default_factory=list)
    """Every trial, by number."""
    unfinished: dict[str, Trial] = field(default_factory=dict)
    """Trials that have not ended, by name."""
    finished: dict[Status, list[Trial]] = field(default_factory=dict)
    """Trials by how they ended, in the order of their ends."""
    ranking: list[Trial] = field(default_factory=list)
    """Scored trials, best first; a higher rung ranks before any lower one."""
    seconds: float = 0.0
    """Wall time of the timed epochs."""
    timed_epochs: int = 0
    timed_cost: float = 0.0
    """Cost of the timed epochs; an epoch of the last stage costs 1."""
    _counts: dict[int, list[int]] = field(default_factory=dict)
    """Trials that arrived, continued and were stopped, by rung."""

    @property
    def best(self) -> Trial | None:
        """Lowest val_nll at the highest rung that any of them reached."""
        return self.ranking[0] if self.ranking else None

    @property
    def ended(self) -> dict[Status, int]:
        """Number of trials by how they ended."""
        return {status: len(trials) for status, trials in self.finished.items()}

    @property
    def seconds_per_step(self) -> float | None:
        """Mean wall seconds of an epoch of the last stage, overheads included; None untimed."""
        return self.seconds / self.timed_cost if self.timed_cost else None

    def add(self, trial: Trial) -> None:
        """Add a trial that starts for the first time."""
        insort(self.trials, trial, key=_number)
        self.unfinished[trial.name] = trial

    def add_time(self, seconds: float, cost: float) -> None:
        """Count one epoch of a trial."""
        self.seconds += seconds
        self.timed_epochs += 1
        self.timed_cost += cost

    def leave_ranking(self, trial: Trial) -> None:
        """Take a trial out of the ranking; its scores may change then."""
        if trial.scores:
            del self.ranking[bisect_left(self.ranking, trial.rank, key=_rank)]

    def enter_ranking(self, trial: Trial, rung: int) -> None:
        """Count and rank a trial that was just scored at a rung."""
        self._count(rung, 0)
        insort(self.ranking, trial, key=_rank)

    def add_decision(self, decision: RungDecided) -> None:
        """Count a trial that continues or stops at a rung; a paused one does neither yet."""
        if decision.decision != "pause":
            self._count(decision.rung, 1 if decision.decision == "continue" else 2)

    def end(self, trial: Trial, event: TrialEnded) -> None:
        """End a trial; a paused one will not be decided on again."""
        if trial.paused:
            self._count(max(trial.decisions), 2)
        trial.end = event
        del self.unfinished[trial.name]
        self.finished.setdefault(event.status, []).append(trial)

    def rung_counts(self, rungs: Iterable[int]) -> dict[int, RungCount]:
        """Return the counts at `rungs` and at every other rung with a trial, lowest first."""
        known = sorted({*rungs, *self._counts})
        return {rung: RungCount(*self._counts.get(rung, (0, 0, 0))) for rung in known}

    def _count(self, rung: int, column: int) -> None:
        self._counts.setdefault(rung, [0, 0, 0])[column] += 1
