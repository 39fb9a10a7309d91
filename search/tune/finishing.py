"""End trials: save predictions and weights, write the record, journal the end.

The order makes a kill at any point harmless: predictions and weights reach the folder, then
record.json, then `trial_ended` is journalled, then the trial's checkpoints are removed. `settle`
can continue between any two of these steps.

A loss of power is harmless, too. The journal so far and the content of all files are on disk before
a file gets its name, and the folder is on disk before `trial_ended` is journalled. The file system
may have kept the names of only some of the folder's files, so `settle` removes a record that lacks
its predictions.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from common.files import NO_FILES
from common.parsing import from_mapping
from journal.emitter import Emitter
from journal.events import Cause, Kind, Status, TrialEnded
from journal.trial import Trial
from search.schedulers.verdict import Verdict, verdict_on
from search.tune.storage import Storage
from trainables.recipe import Numerics
from trainables.records import (
    WEIGHTS,
    RunFolder,
    TrialRecord,
    TrialStart,
    read_record,
    read_start,
    write_record,
)

RECORD = "record.json"

NOTHING: Mapping[str, str] = MappingProxyType({})


class Finisher:
    """Ends the trials of one kind in one run."""

    def __init__(
        self, emitter: Emitter, folder: RunFolder, storage: Storage, *, rungs: Sequence[int]
    ) -> None:
        """`rungs` are the budgets at which trials are scored; the last is the whole schedule."""
        self._emitter = emitter
        self._folder = folder
        self._storage = storage
        self._last_rung = rungs[-1]
        self._pooled_from = rungs[-2:][0]
        self._splits: dict[str, str] = {}
        """Splits of the trials that this process has started, by trial."""

    def settle(self, kind: Kind) -> None:
        """End the trials that an earlier process had decided on but not ended."""
        for trial in self._emitter.state.trials.unfinished(kind):
            folder = self._folder.trial(trial.name)
            if (folder / RECORD).exists():
                record = read_record(folder / RECORD)
                if all((folder / name).exists() for name in _kept(record)):
                    self._announce(record, traceback=None)
                    continue
                (folder / RECORD).unlink()
            self.finish(trial)

    def retire(self, kind: Kind) -> None:
        """End the trials that have a verdict; end others as pruned at their last rung, if any."""
        self.settle(kind)
        for trial in self._emitter.state.trials.unfinished(kind):
            if trial.rung is not None and trial.score is not None:
                reason = f"no time was left to continue from rung {trial.rung}"
                self._finish(trial, Verdict("pruned", reason))

    def finish(self, trial: Trial) -> bool:
        """End a trial that has its verdict; False if it has none or its checkpoint is lost."""
        verdict = verdict_on(trial, last_rung=self._last_rung)
        return verdict is not None and self._finish(trial, verdict)

    def end(
        self,
        trial: Trial,
        status: Status,
        reason: str,
        *,
        params: int = 0,
        halvings: tuple[tuple[int, int], ...] = (),
        numerics: Numerics | None = None,
        machine: dict[str, Any] | None = None,
        rungs: tuple[int, ...] | None = None,
        traceback: str | None = None,
        cause: Cause | None = None,
        failure_peak_bytes: int | None = None,
        sha256: Mapping[str, str] = NOTHING,
        files: Mapping[str, bytes] = NO_FILES,
    ) -> None:
        """Write a trial's results and record, journal its end, and remove its checkpoints.

        `failure_peak_bytes` is the peak memory up to an out-of-memory failure, if known.
        """
        folder = self._folder.trial(trial.name)
        metrics = trial.score._asdict() if trial.score is not None else {}
        record = TrialRecord(
            trial=trial.name,
            kind=trial.kind,
            status=status,
            reason=reason,
            cause=cause,
            split_id=self._split_of(trial.name),
            steps=trial.step,
            rung=trial.rung,
            whole_schedule=status == "completed",
            seconds=trial.seconds,
            peak_memory_bytes=max(trial.peak_memory_bytes, failure_peak_bytes or 0),
            params=params,
            metrics={name: value for name, value in metrics.items() if value is not None},
            halvings=halvings,
            numerics=numerics,
            machine=machine,
            rungs=rungs,
            sha256=dict(sha256),
        )
        write_record(folder, record, files, after=self._emitter.sync)
        self._announce(record, traceback=traceback, failure_peak_bytes=failure_peak_bytes)
        for session in {session_of(checkpoint.path) for checkpoint in trial.checkpoints}:
            self._storage.remove(session)

    def started(self, start: TrialStart) -> None:
        """Remember a trial's split, which its record names."""
        self._splits[start.trial] = start.split_id

    def _split_of(self, name: str) -> str:
        known = self._splits.pop(name, None)
        return known or read_start(self._folder.trial(name) / "start.json").split_id

    def tidy(self) -> None:
        """Remove all checkpoints except those that unfinished trials resume from."""
        trials = self._emitter.state.trials.values()
        self._storage.prune(
            session_of(checkpoint.path)
            for trial in trials
            if trial.end is None
            for checkpoint in trial.checkpoints
        )

    def _finish(self, trial: Trial, verdict: Verdict) -> bool:
        """End a trial with the results of its highest rung; False if their checkpoint is lost."""
        if trial.rung is None:
            return False
        scored = [c for c in trial.checkpoints if c.step == trial.rung_steps[trial.rung]]
        for checkpoint in reversed(scored):
            results = self._storage.results(checkpoint.path)
            if results is not None:
                about, files = results
                # Only these trials can be selected. One that stops at the rung before the last has
                # had a cooldown of its own: it is a whole training with a shorter schedule.
                if verdict.status not in ("completed", "pruned") or trial.rung < self._pooled_from:
                    del files[WEIGHTS]
                self.end(
                    trial,
                    verdict.status,
                    verdict.reason,
                    cause="recipe" if verdict.status == "failed" else None,
                    params=int(about["params"]),
                    halvings=tuple((epoch, step) for epoch, step in about.get("halvings", ())),
                    numerics=_numerics_of(about),
                    machine=about.get("machine"),
                    rungs=None if trial.shortened_to is None else tuple(about["rungs"]),
                    sha256=about["sha256"],
                    files=files,
                )
                return True
        return False

    def _announce(
        self, record: TrialRecord, *, traceback: str | None, failure_peak_bytes: int | None = None
    ) -> None:
        self._emitter.emit(
            TrialEnded(
                trial=record.trial,
                kind=record.kind,
                status=record.status,
                reason=record.reason,
                seconds=record.seconds,
                steps=record.steps,
                rung=record.rung,
                whole_schedule=record.whole_schedule,
                traceback=traceback,
                cause=record.cause or _cause_of(record, traceback),
                peak_memory_bytes=failure_peak_bytes,
            )
        )


def _kept(record: TrialRecord) -> Iterable[str]:
    """Return the files that must be beside the record; weights only if the trial completed."""
    return (name for name in record.sha256 if name != WEIGHTS or record.status == "completed")


def _cause_of(record: TrialRecord, traceback: str | None) -> Cause | None:
    """Return the cause of a failure whose record, of an earlier version, has none."""
    return "recipe" if record.status == "failed" and traceback is None else None


def _numerics_of(about: Mapping[str, Any]) -> Numerics | None:
    """Return the numerics in a checkpoint; None if it is of an earlier version."""
    if "numerics" not in about:
        return None
    return from_mapping(Numerics, about["numerics"], where="numerics")


def session_of(checkpoint: str) -> str:
    """Return SESSION/TRIAL, the folder of a trial's checkpoints in one session."""
    return checkpoint.rpartition("/")[0]
