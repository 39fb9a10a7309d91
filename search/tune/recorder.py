"""What happens to trials, turned into events: journalled first, then handed on.

The order in which a trial ends is what makes a kill at any point harmless: predictions and
weights into its folder, then record.json, then `trial_ended`, then its checkpoints go. A
resumed sweep picks up between any two of these (`settle`). Tune's hooks end here, and
nothing here may raise into Tune: it would end the whole sweep. The first error is kept
instead, and the sweep winds down and raises it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from common.errors import RunError
from common.failures import one_line, reason_of, unwritable
from journal.history import History, TrialHistory
from journal.journal import Journal, Observer
from journal.states import EPOCH_FIELDS, Kind
from search.samplers.suggestions import Suggestion
from search.schedulers.asha import Asha
from search.schedulers.verdicts import verdict_on
from search.timetable.deadlines import Deadlines
from search.tune.storage import Storage
from trainables.records import (
    RunFolder,
    Status,
    TrialRecord,
    TrialStart,
    read_record,
    read_start,
    write_record,
    write_start,
)

log = logging.getLogger(__name__)

R = TypeVar("R")

KEPT_CHECKPOINTS = 2
"""Of a running trial: the last, and the one before in case the last is damaged."""

GIVE_UP = 5
"""So many trials in a row that failed before their first epoch: all others would, too."""


class Recorder:
    """The bookkeeping of one kind of trials in one run."""

    def __init__(
        self,
        journal: Journal,
        folder: RunFolder,
        storage: Storage,
        *,
        kind: Kind,
        rungs: Sequence[int],
        asha: Asha | None = None,
        deadlines: Deadlines = Deadlines(),  # noqa: B008 (frozen)
        observers: Sequence[Observer] = (),
    ) -> None:
        """`asha` decides at rungs, if there is time; without it every trial runs to its end."""
        self.journal = journal
        self.folder = folder
        self.storage = storage
        self.kind = kind
        self.rungs = tuple(rungs)
        self.history = History(journal.events)
        self.deadlines = deadlines
        self.error: Exception | None = None
        """The first thing that went wrong in the bookkeeping itself."""
        self._asha = asha.replay(journal.events) if asha is not None else None
        self._observers = list(observers)
        self._broken: set[int] = set()
        """Observers, by index, of whose failure the journal tells."""
        self._stillborn = 0
        """Trials in a row, of this session, that failed before their first epoch."""

    def observe(self, observer: Observer) -> None:
        """Hand every further event to `observer` too."""
        self._observers.append(observer)

    def emit(self, event: Mapping[str, Any]) -> None:
        """Journal an event, then hand it on; observers that fail stop nothing."""
        written = self.journal.append(event)
        self.history.apply(written)
        for index, observer in enumerate(self._observers):
            try:
                observer(written)
            except Exception as error:
                log.exception("an observer failed on %s", written["event"])
                if index not in self._broken:
                    self._broken.add(index)
                    self.journal.append({"event": "observer_failed", "reason": one_line(error)})

    def started(self, suggestion: Suggestion, start: TrialStart) -> TrialStart:
        """A trial starts, or starts again: then its first start.json is what counts.

        Raises:
            RunError: the trial was started with another split.
        """
        folder = self.folder.trial(suggestion.trial)
        path = folder / "start.json"
        if suggestion.attempt > 1 and path.exists():
            now, start = start, read_start(path)
            if start.split_id != now.split_id:
                raise RunError(
                    f"{start.trial} was started with split {start.split_id}, the data now give "
                    f"{now.split_id}: the images have changed; start a new run"
                )
        self._start(suggestion, start.recipe.to_mapping(), start.seed, suggestion.attempt)
        # The event comes first: a start.json without one is from a suggestion that was lost.
        path.unlink(missing_ok=True)
        write_start(folder, start)
        return start

    def decide(self, trial: str, result: Mapping[str, Any]) -> bool:
        """Whether a trial goes on after this result. The same report may come again."""
        return self.safely(lambda: self._decide(trial, result), False)

    def reported(self, trial: str, result: Mapping[str, Any]) -> None:
        """A result came in; most have been seen by `decide` already."""
        self.safely(lambda: self._epoch(trial, result), None)

    def saved(self, trial: str, step: int, path: str) -> None:
        """A checkpoint stands at `path`; older ones than the last two go."""
        self.safely(lambda: self._save(trial, step, path), None)

    def retried(self, trial: str, traceback: str) -> None:
        """A trial failed and starts again from its last checkpoint."""
        self.safely(lambda: self._retry(trial, reason_of(traceback)), None)

    def failed(self, trial: str, traceback: str) -> None:
        """A trial failed for good."""
        reason = reason_of(traceback)
        self.safely(lambda: self._fail(trial, reason, traceback), None)

    def completed(self, trial: str, result: Mapping[str, Any]) -> None:
        """A trial came to an end of its own, or was stopped at a rung."""
        self.safely(lambda: self._complete(trial, result), None)

    def settle(self) -> None:
        """Finish what an earlier process had decided but not brought to its end."""
        self.safely(self._settle, None)

    def tidy(self) -> None:
        """Leave no checkpoints but those that unfinished trials go on from."""
        every = self.history.trials.values()
        keep = {_folder(p) for trial in every if not trial.status for _, p in trial.checkpoints}
        self.storage.prune(keep)

    def safely(self, action: Callable[[], R], default: R) -> R:
        """Keep an exception as the sweep's error instead of raising it into Tune.

        Nothing is done after an error: what happens then is for the resumed sweep.
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

    def _settle(self) -> None:
        for trial in self.history.unfinished(self.kind):
            folder = self.folder.trial(trial.trial)
            if (folder / "record.json").exists():
                self._announce(read_record(folder / "record.json"), traceback=None)
            elif self._verdict(trial) is not None and not self._finish(trial):
                # Scored again from an earlier checkpoint: it must not train on past its end.
                scored = trial.rung_steps[trial.rung or 0]
                trial.checkpoints = [c for c in trial.checkpoints if c[0] < scored]

    def _decide(self, trial: str, result: Mapping[str, Any]) -> bool:
        self._epoch(trial, result)
        rung = result.get("rung")
        if rung is None or self._asha is None:
            return True
        fresh = self._asha.decided(trial, rung) is None
        history, costs = self.history.trials[trial], self.history.costs
        in_time = self.deadlines.allow_next_rung(self.rungs, history, rung, costs)
        decision = self._asha.record(trial, rung, result["val_nll"], in_time=in_time)
        if fresh:
            self.emit(
                {
                    "event": "decision",
                    "trial": trial,
                    "rung": rung,
                    "value": result["val_nll"],
                    "decision": decision.action,
                    "cutoff": decision.cutoff,
                }
            )
        return decision.action == "continue"

    def _save(self, trial: str, step: int, path: str) -> None:
        self.emit({"event": "checkpoint", "trial": trial, "step": step, "path": path})
        for _, old in self.history.trials[trial].checkpoints[:-KEPT_CHECKPOINTS][-1:]:
            self.storage.remove(old)

    def _retry(self, name: str, reason: str) -> None:
        trial = self.history.trials[name]
        attempt = trial.attempts + 1
        log.warning("%s failed and is tried again: %s", name, reason)
        self.emit({"event": "trial_retried", "trial": name, "attempt": attempt, "reason": reason})
        self._start(trial, trial.recipe, trial.seed, attempt)

    def _start(
        self,
        trial: Suggestion | TrialHistory,
        recipe: Mapping[str, Any],
        seed: int,
        attempt: int,
    ) -> None:
        self.emit(
            {
                "event": "trial_started",
                "trial": trial.trial,
                "number": trial.number,
                "kind": trial.kind,
                "recipe": recipe,
                "seed": seed,
                "attempt": attempt,
            }
        )

    def _complete(self, trial: str, result: Mapping[str, Any]) -> None:
        if result.get("failure"):
            self._end(trial, "failed", result["failure"], params=result["params"])
        elif not self._finish(self.history.trials[trial]):
            self._end(trial, "failed", "its predictions did not reach the run's folder")

    def _epoch(self, trial: str, result: Mapping[str, Any]) -> None:
        if "step" in result and result["step"] not in self.history.trials[trial].steps:
            payload = {key: result[key] for key in EPOCH_FIELDS}
            self.emit({"event": "epoch", "trial": trial, **payload})
            self._stillborn = 0

    def _fail(self, trial: str, reason: str, traceback: str) -> None:
        self._end(trial, "failed", reason, traceback=traceback)
        self._stillborn += not self.history.trials[trial].steps
        if self._stillborn >= GIVE_UP:
            raise RunError(
                f"{self._stillborn} trials in a row failed before their first epoch, the last by "
                f"this: {reason}; mend its cause and go on with --resume"
            )

    def _finish(self, trial: TrialHistory) -> bool:
        """End a trial whose verdict is known and whose last rung's checkpoint stands."""
        verdict = self._verdict(trial)
        if verdict is None or trial.rung is None:
            return False
        status, reason = verdict
        scored = [p for step, p in trial.checkpoints if step == trial.rung_steps[trial.rung]]
        for path in reversed(scored):
            params = self.storage.hand_over(path, self.folder.trial(trial.trial))
            if params is not None:
                self._end(trial.trial, status, reason, params=params)
                return True
        return False

    def _verdict(self, trial: TrialHistory) -> tuple[Status, str] | None:
        return verdict_on(trial, last_rung=self.rungs[-1], asha=self._asha)

    def _end(
        self,
        name: str,
        status: Status,
        reason: str,
        *,
        params: int = 0,
        traceback: str | None = None,
    ) -> None:
        trial = self.history.trials[name]
        folder = self.folder.trial(name)
        record = TrialRecord(
            trial=name,
            kind=trial.kind,
            status=status,
            reason=reason,
            split_id=read_start(folder / "start.json").split_id,
            steps=len(trial.steps),
            rung=trial.rung,
            whole_schedule=status == "completed",
            seconds=trial.seconds,
            peak_memory_bytes=trial.peak_memory_bytes,
            params=params,
            metrics=trial.scores.get(trial.rung or 0, {}),
        )
        write_record(folder, record)
        self._announce(record, traceback=traceback)
        self._clear(trial)

    def _announce(self, record: TrialRecord, *, traceback: str | None) -> None:
        kept = ("trial", "kind", "status", "reason", "seconds", "steps", "rung", "whole_schedule")
        told = {key: getattr(record, key) for key in kept}
        self.emit({"event": "trial_ended", **told, "traceback": traceback})

    def _clear(self, trial: TrialHistory) -> None:
        for folder in {_folder(path) for _, path in trial.checkpoints}:
            self.storage.remove(folder)


def _folder(checkpoint: str) -> str:
    """A trial's folder in one session."""
    return checkpoint.rpartition("/")[0]
