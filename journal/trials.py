"""All trials of a run: a view of the events about them."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from common.stage_costs import EQUAL, StageCosts
from journal.events import (
    CheckpointSaved,
    EpochEnded,
    Kind,
    RungDecided,
    Status,
    TrialEnded,
    TrialEvent,
    TrialRetried,
    TrialStarted,
)
from journal.trial import Trial, score_of

TrialStatus = Literal["pending", "running", "completed", "pruned", "failed"]


def weighted_median(weighted: Iterable[tuple[float, float]]) -> float:
    """Return the value below and above which lies half of the weight, from (value, weight) pairs.

    With equal weights it is the median: between two values, their mean.
    """
    pairs = sorted(weighted)
    half, below = sum(weight for _, weight in pairs) / 2, 0.0
    for index, (value, weight) in enumerate(pairs):
        below += weight
        if math.isclose(below, half) and index + 1 < len(pairs):
            return (value + pairs[index + 1][0]) / 2
        if below > half:
            return value
    raise ValueError("no weight")


class RungCount(NamedTuple):
    """Trials that arrived at one rung, continued from it, and were stopped there."""

    arrived: int
    continued: int
    stopped: int


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
        """Count a trial that continues or stops at a rung; a paused one does neither yet."""
        if decision.decision != "pause":
            self._count(decision.rung, 1 if decision.decision == "continue" else 2)

    def stop_paused(self, rung: int) -> None:
        """Count a paused trial that will not be decided on again."""
        self._count(rung, 2)

    def add_end(self, status: Status) -> None:
        """Count a trial that ended."""
        self.ended[status] = self.ended.get(status, 0) + 1

    def rung_counts(self, rungs: Iterable[int]) -> dict[int, RungCount]:
        """Return the counts at `rungs` and at every other rung with a trial, lowest first."""
        known = sorted({*rungs, *self._counts})
        return {rung: RungCount(*self._counts.get(rung, (0, 0, 0))) for rung in known}

    def _count(self, rung: int, column: int) -> None:
        self._counts.setdefault(rung, [0, 0, 0])[column] += 1


class Trials(Mapping[str, Trial]):
    """The trials of a run by name, in the order of their first start."""

    def __init__(self) -> None:
        """Return a run without trials."""
        self._trials: dict[str, Trial] = {}
        self.running: set[str] = set()
        self.peak_running = 0
        self.peak_memory_bytes = 0
        """Peak memory of any worker."""
        self.cohorts: dict[Kind, Cohort] = {"search": Cohort(), "seed": Cohort()}
        self.costs = EQUAL
        """Relative cost of a trial's epochs, by the run's last plan."""
        self.family_costs: Mapping[str, StageCosts] = {}
        """The same by family, if the sweep has any."""
        self._halted = -math.inf
        """No epoch is timed across this moment."""

    def __getitem__(self, name: str) -> Trial:
        return self._trials[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._trials)

    def __len__(self) -> int:
        return len(self._trials)

    @property
    def best(self) -> Trial | None:
        """The search trial with the lowest val_nll at the highest rung that any reached."""
        return self.cohorts["search"].best

    def status(self, trial: Trial) -> TrialStatus:
        """Return a trial's status; `pending` if it was interrupted or paused and can resume."""
        return trial.status or ("running" if trial.name in self.running else "pending")

    def with_status(self, *statuses: TrialStatus, kind: Kind | None = None) -> list[Trial]:
        """Return the trials with any of these statuses, by name."""
        trials = (
            trial
            for trial in self.values()
            if self.status(trial) in statuses and kind in (None, trial.kind)
        )
        return sorted(trials, key=lambda trial: trial.name)

    def of_kind(self, kind: Kind) -> list[Trial]:
        """Return the trials of one kind, by number."""
        trials = (trial for trial in self.values() if trial.kind == kind)
        return sorted(trials, key=lambda trial: trial.number)

    def unfinished(self, kind: Kind) -> list[Trial]:
        """Return the trials that have started and not ended, by number."""
        return [trial for trial in self.of_kind(kind) if trial.end is None]

    def ranked(self, *, kind: Kind = "search") -> list[Trial]:
        """Return the scored trials, best first; a higher rung ranks before any lower one."""
        scored = [trial for trial in self.values() if trial.kind == kind and trial.scores]
        return sorted(scored, key=lambda trial: trial.rank)

    def costs_of(self, recipe: Mapping[str, Any]) -> StageCosts:
        """Return the relative cost of the epochs of a trial with this recipe."""
        return self.family_costs.get(str(recipe.get("family", "")), self.costs)

    def features_known(self, kind: Kind, recipe: Mapping[str, Any]) -> bool:
        """Return whether a worker that is free has the features below the head of this recipe.

        It has them if it has trained such a trial of this kind: workers live as long as their
        stage, and end with the process.
        """
        costs = self.costs_of(recipe)
        return any(
            trial.kind == kind
            and trial.status in ("completed", "pruned")
            and trial.last_seen > self._halted
            and self.costs_of(trial.recipe) == costs
            for trial in self.values()
        )

    def pace(self, recipe: Mapping[str, Any] | None = None) -> float | None:
        """Return the seconds of an epoch of the last stage, the median over trials.

        Only trials with `recipe` count, if there are any, whatever their number of epochs. A
        trial's weight is the cost of the epochs that were timed, so that a cheap family, whose
        pace is all overhead, says little about an expensive one. None before any epoch; in a sweep
        with families, before a whole epoch of the first one has been trained.
        """
        timed = [
            (trial.recipe, *trial.timed(self.costs_of(trial.recipe))) for trial in self.values()
        ]
        known = [(each, seconds / cost, cost) for each, seconds, cost in timed if cost]
        asked = None if recipe is None else _without_length(recipe)
        same = [(pace, cost) for each, pace, cost in known if _without_length(each) == asked]
        chosen = same or [(pace, cost) for _, pace, cost in known]
        if not same and self.family_costs and sum(cost for _, cost in chosen) < 1:
            return None
        return weighted_median(chosen) if chosen else None

    def halt(self, time: float) -> None:
        """Mark every trial as not running; the next epochs are not timed from before `time`."""
        self._halted = time
        self.running = set()

    def apply(self, event: TrialEvent) -> None:
        """Fold one event of a trial in."""
        if isinstance(event, TrialStarted):
            self._start(event)
            return
        trial = self._trials[event.trial]
        trial.last_seen = event.time
        match event:
            case EpochEnded():
                self._end_epoch(trial, event)
            case RungDecided():
                trial.decisions[event.rung] = event
                self.cohorts[trial.kind].add_decision(event)
                if event.decision == "pause":
                    self.running.discard(trial.name)
            case CheckpointSaved():
                trial.checkpoints.append(event)
            case TrialRetried():
                trial.retries[event.attempt] = event.reason
                trial.last_lap = None
            case TrialEnded():
                if trial.paused:
                    self.cohorts[trial.kind].stop_paused(max(trial.decisions))
                trial.end = event
                self.cohorts[trial.kind].add_end(event.status)
                self.running.discard(trial.name)

    def _start(self, event: TrialStarted) -> None:
        trial = self._trials.setdefault(event.trial, Trial.of_start(event))
        trial.attempts, trial.last_seen, trial.last_lap = event.attempt, event.time, None
        self.running.add(trial.name)
        self.peak_running = max(self.peak_running, len(self.running))

    def _end_epoch(self, trial: Trial, event: EpochEnded) -> None:
        cohort = self.cohorts[trial.kind]
        seconds = self._lap(trial, event)
        if seconds is not None:
            costs = self.costs_of(trial.recipe)
            cohort.add_time(seconds, costs.of_step(event.epoch, before=trial.epoch))
        self.peak_memory_bytes = max(self.peak_memory_bytes, event.peak_memory_bytes or 0)
        trial.epochs.append(event)
        if event.rung is not None:
            trial.scores[event.rung] = score_of(event)
            trial.rung_steps[event.rung] = event.step
            cohort.add_score(trial, event.rung)

    def _lap(self, trial: Trial, event: EpochEnded) -> float | None:
        """Return the wall time since the trial's last epoch, overheads included.

        The first epoch of an attempt counts with the seconds that it reports: a worker may
        have started before it, which takes long and happens once.
        """
        last, trial.last_lap = trial.last_lap, event.time
        if last is None or last < self._halted:
            return event.seconds
        return max(0.0, event.time - last)


def _without_length(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe without the number of its epochs: an epoch takes the same time with any."""
    return {key: value for key, value in recipe.items() if key != "epochs"}
