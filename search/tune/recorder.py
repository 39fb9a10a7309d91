"""Record what happens to trials while Tune runs them.

Nothing here may raise into Tune, which would end the whole sweep: the first error is kept, the
sweep winds down, and the error is raised at the end.
"""

import errno
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from common.errors import RunError
from common.failures import lacked_memory, noted_peak_memory, reason_of, unwritable
from journal.emitter import Emitter
from journal.events import (
    EPOCH_FIELDS,
    Cause,
    CheckpointSaved,
    EpochEnded,
    Event,
    Kind,
    RungDecided,
    TrialRetried,
    TrialStarted,
)
from journal.state import RunState
from journal.trial import Trial
from search.samplers.suggestions import Suggestion
from search.schedulers.scheduler import Decision, Scheduler
from search.timetable.capacity import Share
from search.timetable.deadlines import Deadlines
from search.tune.disk import DiskBudget
from search.tune.finishing import Finisher
from search.tune.storage import Storage
from trainables.records import RunFolder, TrialStart, read_start, write_start

log = logging.getLogger(__name__)

R = TypeVar("R")

KEPT_CHECKPOINTS = 2
"""Checkpoints kept of a running trial: the last, and the one before in case the last is damaged."""

GIVE_UP = 5
"""The sweep stops once this many trials in a row fail before their first epoch, or this many fail
on one machine."""


class Recorder:
    """Records the trials of one kind in one run."""

    def __init__(
        self,
        emitter: Emitter,
        folder: RunFolder,
        storage: Storage,
        *,
        kind: Kind,
        rungs: Sequence[int],
        scheduler: Scheduler | None = None,
        disk: DiskBudget | None = None,
        deadlines: Deadlines = Deadlines(),  # noqa: B008 (frozen)
    ) -> None:
        """`scheduler` decides at rungs; without it every trial trains to its end.

        `disk` limits the run's folder; None for no limit.
        """
        self.emitter = emitter
        self.folder = folder
        self.storage = storage
        self.kind = kind
        self.rungs = tuple(rungs)
        self.deadlines = deadlines
        self.error: Exception | None = None
        """The first error of the recorder itself."""
        self._scheduler = None if scheduler is None else scheduler.replay(emitter.state)
        self._disk = disk
        self._finisher = Finisher(emitter, folder, storage, rungs=self.rungs)
        self._failed_at_once = 0
        """Number of trials in a row, in this session, that failed before their first epoch."""
        self._failed_on: Counter[str] = Counter()
        """Number of trials, in this session, that failed on each machine."""
        self._alone: set[str] = set()
        """Trials that ran out of memory and are retried alone."""
        self._waiting_alone: dict[str, Share] = {}
        """Resources of those that have not started again yet."""

    @property
    def state(self) -> RunState:
        """The run's state after the last event."""
        return self.emitter.state

    @property
    def disk_full(self) -> bool:
        """True if the run's folder takes all the space that it may: no trial starts then."""
        return self._disk is not None and self._disk.full

    @property
    def waiting_alone(self) -> Mapping[str, Share]:
        """The resources of the trials that wait to run alone, the first one first."""
        return self._waiting_alone

    def wait_alone(self, trial: str, share: Share) -> None:
        """Record that a trial ran out of memory and is retried alone."""
        self._alone.add(trial)
        self._waiting_alone[trial] = share

    def starts_alone(self, trial: str) -> None:
        """Record that a trial has the resources that it waited for."""
        self._waiting_alone.pop(trial, None)

    def settle(self) -> None:
        """Decide on the paused trials again; end those that are decided; remove old checkpoints."""
        self.safely(self._settle, None)
        self._finisher.tidy()

    def retire(self) -> None:
        """End the unfinished trials with the results of their last rung, where these exist."""
        self.safely(lambda: self._finisher.retire(self.kind), None)

    def tidy(self) -> None:
        """Remove all checkpoints except those that unfinished trials resume from."""
        self._finisher.tidy()

    def started(self, suggestion: Suggestion, start: TrialStart) -> TrialStart:
        """Journal a trial's start and write start.json; return the values that the trial must use.

        A restarted trial uses its first start.json.

        Raises:
            RunError: the trial was started with another split.
        """
        folder = self.folder.trial(suggestion.trial)
        path = folder / "start.json"
        if suggestion.attempt > 1 and path.exists():
            present, start = start, read_start(path)
            if start.split_id != present.split_id:
                raise RunError(
                    f"{start.trial} was started with split {start.split_id}, the data now give "
                    f"{present.split_id}: the images have changed, or an earlier version divided "
                    "them by another rule; start a new run"
                )
        self.emitter.emit(
            TrialStarted(
                trial=suggestion.trial,
                number=suggestion.number,
                kind=suggestion.kind,
                recipe=start.recipe.to_mapping(),
                seed=start.seed,
                attempt=suggestion.attempt,
            )
        )
        # The event comes first: a start.json without one is from a suggestion that was lost.
        path.unlink(missing_ok=True)
        write_start(folder, start)
        self._finisher.started(start)
        return start

    def decide(self, trial: str, result: Mapping[str, Any]) -> bool:
        """Record a result and return whether the trial continues."""
        return self.safely(lambda: self._decide(trial, result), False)

    def reported(self, trial: str, result: Mapping[str, Any]) -> None:
        """Record a result; Tune reports most of them to `decide` first."""
        self.safely(lambda: self._end_epoch(trial, result), None)

    def saved(self, trial: str, step: int, path: str) -> None:
        """Record a checkpoint at `path`, and remove the one that it replaces."""
        self.safely(lambda: self._save(trial, step, path), None)

    def retried(self, trial: str, traceback: str) -> None:
        """Record that a trial failed and restarts from its last checkpoint."""
        self.safely(lambda: self._retry(trial, traceback), None)

    def failed(self, trial: str, traceback: str) -> None:
        """End a trial that failed for good."""
        self.safely(lambda: self._fail(trial, reason_of(traceback), traceback), None)

    def completed(self, trial: str, result: Mapping[str, Any]) -> None:
        """End a trial that is done or was stopped at a rung; a paused one stays unfinished."""
        self.safely(lambda: self._complete(trial, result), None)

    def emit(self, event: Event) -> None:
        """Journal an event of the sweep itself."""
        self.emitter.emit(event)

    def safely(self, action: Callable[[], R], default: R) -> R:
        """Keep an exception as the sweep's error instead of raising it into Tune.

        After an error, later actions are skipped; the resumed sweep does them.
        """
        if self.error is not None:
            return default
        try:
            return action()
        except OSError as error:
            self.error = unwritable(self.folder.root, error)
        except Exception as error:
            self.error = error
        return default

    def _decide(self, name: str, result: Mapping[str, Any]) -> bool:
        self._end_epoch(name, result)
        rung = result.get("rung")
        if rung is None or self._scheduler is None:
            return True
        trial = self.state.trials[name]
        if rung not in trial.decisions:
            self._emit_decision(trial, rung, self._decision(self._scheduler, trial, rung))
        return trial.decisions[rung].decision == "continue"

    def _decision(self, scheduler: Scheduler, trial: Trial, rung: int) -> Decision:
        if rung == trial.shortened_to:
            return Decision(reason="last_rung")
        return scheduler.decide(
            rung,
            trial.scores[rung].val_nll,
            in_time=self.deadlines.allow_next_rung(
                self.rungs, trial, rung, self.state.trials.costs_of(trial.recipe)
            ),
            family=trial.family,
            paused=trial.paused,
        )

    def _emit_decision(self, trial: Trial, rung: int, decision: Decision) -> None:
        self.emit(
            RungDecided(
                trial=trial.name,
                rung=rung,
                value=trial.scores[rung].val_nll,
                decision=decision.action,
                cutoff=decision.cutoff,
                reason=decision.reason,
            )
        )

    def _settle(self) -> None:
        for trial in self.state.trials.unfinished(self.kind):
            if self._scheduler is not None and trial.paused:
                rung = max(trial.decisions)
                decision = self._decision(self._scheduler, trial, rung)
                if decision.action != "pause":
                    self._emit_decision(trial, rung, decision)
        self._finisher.settle(self.kind)
        if self._disk is not None:
            self._disk.resume(self.state.trials.ranked())

    def _end_epoch(self, name: str, result: Mapping[str, Any]) -> None:
        """Journal an epoch's first report.

        Tune hands over most results twice, and a trial that resumes from an earlier checkpoint
        trains epochs again.
        """
        trial = self.state.trials[name]
        if "step" in result and result["step"] > trial.step and trial.end is None:
            fields = {key: result[key] for key in EPOCH_FIELDS}
            shortened_to = result.get("shortened_to")
            self.emit(EpochEnded(trial=name, **fields, shortened_to=shortened_to))
            self._failed_at_once = 0

    def _save(self, name: str, step: int, path: str) -> None:
        trial = self.state.trials[name]
        if trial.end is not None:  # its last save was still under way when it failed
            self.storage.remove(path)
            return
        self.emit(CheckpointSaved(trial=name, step=step, path=path))
        for old in trial.checkpoints[:-KEPT_CHECKPOINTS][-1:]:
            self.emitter.sync()  # else, after a power loss, the journal could name a removed one
            self.storage.remove(old.path)

    def _retry(self, name: str, traceback: str) -> None:
        reason = reason_of(traceback)
        self._require_space(reason)
        trial = self.state.trials[name]
        attempt = trial.attempts + 1
        log.warning("%s failed and restarts: %s", name, reason)
        self.emit(
            TrialRetried(
                trial=name,
                attempt=attempt,
                reason=reason,
                peak_memory_bytes=noted_peak_memory(traceback),
            )
        )
        self.emit(
            TrialStarted(
                trial=name,
                number=trial.number,
                kind=trial.kind,
                recipe=trial.recipe,
                seed=trial.seed,
                attempt=attempt,
            )
        )

    def _complete(self, name: str, result: Mapping[str, Any]) -> None:
        trial = self.state.trials[name]
        if result.get("failure"):
            reason, cause = result["failure"], result.get("cause", "recipe")
            self._require_space(reason)
            self._finisher.end(trial, "failed", reason, params=result["params"], cause=cause)
            if cause == "machine":
                self._count_failure_on(result.get("host", ""), reason)
        elif not trial.paused and not self._finisher.finish(trial):
            reason = "its predictions did not reach the run's folder"
            self._finisher.end(trial, "failed", reason, cause="machine")
        if self._disk is not None and trial.end is not None:
            self._disk.add(trial)
            self._disk.make_room(before=self.emitter.sync)

    def _count_failure_on(self, host: str, reason: str) -> None:
        """Stop the sweep if many trials failed on one machine, so that the user can remove it.

        Raises:
            RunError: with the machine and the last reason.
        """
        self._failed_on[host] += 1
        if self._failed_on[host] >= GIVE_UP:
            raise RunError(
                f"{self._failed_on[host]} trials failed on {host}, the last with: {reason}; repair "
                "or remove that machine and continue with --resume"
            )

    def _require_space(self, reason: str) -> None:
        """Stop the sweep if a worker's disk is full: every other trial would fail as well.

        Raises:
            RunError: the trial stays unfinished and can be resumed.
        """
        if os.strerror(errno.ENOSPC) in reason or os.strerror(errno.EDQUOT) in reason:
            raise RunError(
                f"{self.folder.root}: a worker cannot write ({reason}); finished work is safe: "
                "free space on its disk, then continue with --resume"
            )

    def _fail(self, name: str, reason: str, traceback: str) -> None:
        self._require_space(reason)
        trial = self.state.trials[name]
        # Trials share the memory of a machine or GPU: only one that ran alone is to blame.
        blamed = trial.name in self._alone and lacked_memory(traceback)
        cause: Cause = "recipe" if blamed else "machine"
        self._waiting_alone.pop(trial.name, None)
        self._finisher.end(
            trial,
            "failed",
            reason,
            traceback=traceback,
            cause=cause,
            failure_peak_bytes=noted_peak_memory(traceback),
        )
        self._count_failure(trial, reason)

    def _count_failure(self, trial: Trial, reason: str) -> None:
        """Stop the sweep if many trials in a row failed immediately: all others would as well.

        Raises:
            RunError: with the last reason.
        """
        self._failed_at_once += not trial.epochs
        if self._failed_at_once >= GIVE_UP:
            raise RunError(
                f"{self._failed_at_once} trials in a row failed before their first epoch, the "
                f"last with: {reason}; fix the cause and continue with --resume"
            )
