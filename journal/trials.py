"""All trials of a run: a view of the events about them.

Questions that are asked for every trial of a sweep are answered without a scan of all trials.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from common.stage_costs import EQUAL, StageCosts
from journal.cohort import Cohort
from journal.events import (
    CheckpointSaved,
    EpochEnded,
    Kind,
    RungDecided,
    TrialEnded,
    TrialEvent,
    TrialRetried,
    TrialStarted,
)
from journal.paces import Paces, weighted_median
from journal.trial import Trial, score_of

TrialStatus = Literal["pending", "running", "completed", "pruned", "failed"]


class Trials(Mapping[str, Trial]):
    """The trials of a run by name, in the order of their first start."""

    def __init__(self) -> None:
        """Return a run without trials."""
        self._trials: dict[str, Trial] = {}
        self.running: set[str] = set()
        self.peak_running = 0
        self.peak_memory_bytes = 0
        """Peak memory of any worker."""
        self.restarts = 0
        """Number of times that a trial was started again after a failure."""
        self.cohorts: dict[Kind, Cohort] = {"search": Cohort(), "seed": Cohort()}
        self.costs = EQUAL
        """Relative cost of a trial's epochs, by the run's last plan."""
        self.family_costs: Mapping[str, StageCosts] = {}
        """The same by family, if the sweep has any."""
        self._halted = -math.inf
        """No epoch is timed across this moment."""
        self._paces = Paces()
        self._features: dict[tuple[Kind, str], float] = {}
        """Last end of a trial that was not a failure, by kind and family."""

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
        found: list[Trial] = []
        for each, cohort in self.cohorts.items():
            if kind in (None, each):
                found += (t for t in cohort.unfinished.values() if self.status(t) in statuses)
                for status, trials in cohort.finished.items():
                    found += trials if status in statuses else ()
        return sorted(found, key=lambda trial: trial.name)

    def of_kind(self, kind: Kind) -> list[Trial]:
        """Return the trials of one kind, by number."""
        return list(self.cohorts[kind].trials)

    def unfinished(self, kind: Kind) -> list[Trial]:
        """Return the trials that have started and not ended, by number."""
        return sorted(self.cohorts[kind].unfinished.values(), key=lambda trial: trial.number)

    def ranked(self, *, kind: Kind = "search", most: int | None = None) -> list[Trial]:
        """Return the scored trials, best first; a higher rung ranks before any lower one.

        At most `most` of them are returned.
        """
        return self.cohorts[kind].ranking[:most]

    def costs_of(self, recipe: Mapping[str, Any]) -> StageCosts:
        """Return the relative cost of the epochs of a trial with this recipe."""
        return self._family_costs(str(recipe.get("family", "")))

    def features_known(self, kind: Kind, recipe: Mapping[str, Any]) -> bool:
        """Return whether a worker that is free has the features below the head of this recipe.

        It has them if it has trained such a trial of this kind: workers live as long as their
        stage, and end with the process.
        """
        costs = self.costs_of(recipe)
        return any(
            each == kind and last > self._halted and self._family_costs(family) == costs
            for (each, family), last in self._features.items()
        )

    def pace(self, recipe: Mapping[str, Any] | None = None) -> float | None:
        """Return the seconds of an epoch of the last stage, the median over recent trials.

        Only trials with `recipe` count, if there are any, whatever their number of epochs. A
        trial's weight is the cost of the epochs that were timed, so that a cheap family, whose
        pace is all overhead, says little about an expensive one. None before any epoch; in a sweep
        with families, before a whole epoch of the first one has been trained.
        """
        costs = (self.family_costs, self.costs)
        same = [] if recipe is None else self._paces.of_recipe(recipe, *costs)
        chosen = same or self._paces.all(*costs)
        if not same and self.family_costs and sum(timed.cost for timed in chosen) < 1:
            return None
        paces = [(timed.seconds / timed.cost, timed.cost) for timed in chosen]
        return weighted_median(paces) if paces else None

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
                self._add_failure_peak(trial, event)
                trial.retry_step = trial.step
                self.restarts += 1
                trial.last_lap = None
            case TrialEnded():
                self._add_failure_peak(trial, event)
                self.cohorts[trial.kind].end(trial, event)
                self.running.discard(trial.name)
                if event.status != "failed":
                    self._features[trial.kind, trial.family] = event.time

    def _add_failure_peak(self, trial: Trial, event: TrialRetried | TrialEnded) -> None:
        trial.failure_peak_bytes = max(trial.failure_peak_bytes, event.peak_memory_bytes or 0)
        self.peak_memory_bytes = max(self.peak_memory_bytes, event.peak_memory_bytes or 0)

    def _family_costs(self, family: str) -> StageCosts:
        return self.family_costs.get(family, self.costs)

    def _start(self, event: TrialStarted) -> None:
        trial = self._trials.get(event.trial)
        if trial is None:
            trial = self._trials[event.trial] = Trial.of_start(event)
            self.cohorts[trial.kind].add(trial)
            self._paces.add(trial)
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
            cohort.leave_ranking(trial)
            trial.scores[event.rung] = score_of(event)
            trial.rung_steps[event.rung] = event.step
            cohort.enter_ranking(trial, event.rung)

    def _lap(self, trial: Trial, event: EpochEnded) -> float | None:
        """Return the wall time since the trial's last epoch, overheads included.

        The first epoch of an attempt counts with the seconds that it reports: a worker may
        have started before it, which takes long and happens once.
        """
        last, trial.last_lap = trial.last_lap, event.time
        if last is None or last < self._halted:
            return event.seconds
        return max(0.0, event.time - last)
