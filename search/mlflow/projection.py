"""Project a run's events to MLflow runs, without MLflow.

The sweep is a run, and each trial, seed, ensemble and student is a run below it. The same events
always give the same runs, so the view can be brought up to date after an outage or rebuilt from
the journal.

A pruned trial ended as intended, so it is FINISHED; the tag `quorum.status` distinguishes it from
a completed one. A trial that failed by itself is FAILED; one whose process ended is KILLED. MLflow
shows both with the same red cross.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from journal.events import (
    EPOCH_FIELDS,
    EpochEnded,
    Event,
    ModelRegistered,
    PlanMade,
    ResultReported,
    RunResumed,
    RunStarted,
    StageReported,
    Status,
    SweepEnded,
    TrialEnded,
    TrialRetried,
    TrialStarted,
    encode,
)
from journal.state import RunState
from search.mlflow.descriptions import describe_run, describe_trial
from search.mlflow.runs import SWEEP, RunChange, Runs, RunStatus, params, points
from search.space.start_command import start_command


class Projection:
    """The MLflow runs of a journal's events, and what is new about them."""

    def __init__(self) -> None:
        """Return the projection of no events."""
        self.state = RunState()
        self.identity = ""
        """Hash that identifies this run among others of the same name; empty before it starts."""
        self._runs = Runs()

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment: one for all runs of a sweep, so that they compare."""
        return f"quorum-{self.state.spec.get('name', 'sweep')}"

    def apply(self, event: Event) -> None:
        """Add the next event; raises as `RunState.apply`."""
        self.state.apply(event)
        match event:
            case RunStarted():
                self._start_run(event)
            case RunResumed():
                self._resume_run(event)
            case TrialStarted():
                self._start_trial(event)
            case TrialRetried():
                tags = {
                    "quorum.attempts": str(event.attempt),
                    "quorum.retry_reason": event.reason,
                }
                self._runs.update(event.trial, event.time, tags=tags)
            case EpochEnded():
                self._end_epoch(event)
            case TrialEnded():
                self._end_trial(event)
            case PlanMade():
                self._runs.update(SWEEP, event.time, tags=self._command())
            case SweepEnded():
                self._runs.kill_open_trials()
            case StageReported() if event.status == "finished":
                seconds = self.state.stages[event.stage].seconds(event.time)
                values = points({f"seconds_{event.stage}": seconds}, event.time)
                self._runs.update(SWEEP, event.time, points=values)
            case ResultReported():
                self._report_result(event)
            case ModelRegistered():
                tag = f"{event.name} version {event.version}, {event.alias}"
                self._runs.update(SWEEP, event.time, tags={"quorum.registered": tag})

    def close(self) -> None:
        """End the runs that are still open, because no process works on them any more."""
        if not self.identity:
            return
        self._runs.kill_open_trials()
        unfinished = self.state.interrupted or self.state.active
        self._runs.end(SWEEP, "KILLED" if unfinished else "FINISHED", self.state.last_time)

    def latest(self, kind: str) -> str:
        """Return the key of the last result of this kind.

        A second result gets its own run, because MLflow does not let parameters change.
        """
        results = self.state.results.get(kind, ())
        return kind if len(results) < 2 else f"{kind} ({len(results)})"

    def take(self) -> list[RunChange]:
        """Return what changed since the last call, the sweep before its trials."""
        return self._runs.take()

    def _start_run(self, event: RunStarted) -> None:
        text = json.dumps(encode(event), sort_keys=True, default=str)
        self.identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        name = event.run or str(event.spec.get("name") or "run")
        self._runs.update(
            SWEEP,
            event.time,
            name=name,
            params=params(event.spec),
            tags=_run_tags(event) | self._command(),
        )

    def _command(self) -> dict[str, str]:
        """Return the command that started the run, as a tag; empty if it is unknown."""
        started = self.state.started
        text = (started and started.command) or start_command(self.state)
        return {"quorum.command": text} if text else {}

    def _resume_run(self, event: RunResumed) -> None:
        self._runs.kill_open_trials()
        tags = {"quorum.resumes": str(len(self.state.resumes))}
        if event.code_version:
            tags["quorum.code_version"] = event.code_version
        self._runs.update(SWEEP, event.time, tags=tags)

    def _start_trial(self, event: TrialStarted) -> None:
        values = {
            **_active_values(event.recipe, self.state.spec.get("space") or {}),
            "seed": event.seed,
            "number": event.number,
        }
        tags = {"quorum.kind": event.kind, "quorum.attempts": str(event.attempt)}
        self._runs.update(
            event.trial, event.time, params=params(values), tags=tags, recipe=event.recipe
        )

    def _end_epoch(self, event: EpochEnded) -> None:
        fields = encode(event)
        values = {
            _METRICS.get(key, key): value
            for key, value in fields.items()
            if key not in _NOT_METRICS
        }
        if event.rung is not None:
            width = len(str(max((99, *self.state.rungs))))
            values[f"val_nll_at_{event.rung:0{width}d}"] = event.val_nll
            values[f"val_accuracy_at_{event.rung:0{width}d}"] = event.val_accuracy
            values["rung"] = event.rung
        cells = (fields[column] for column in EPOCH_FIELDS)
        row = ",".join("" if cell is None else str(cell) for cell in cells)
        self._runs.update(
            event.trial, event.time, points=points(values, event.time, event.step), curve_row=row
        )

    def _end_trial(self, event: TrialEnded) -> None:
        tags = {"quorum.status": str(event.status)}
        if event.reason:
            tags["quorum.reason"] = event.reason
            tags["mlflow.note.content"] = describe_trial(
                event.status, event.reason, event.traceback
            )
        seconds = points({"train_seconds": event.seconds}, event.time, event.steps)
        self._runs.update(event.trial, event.time, tags=tags, points=seconds)
        self._runs.end(event.trial, _STATUS[event.status], event.time)
        if event.kind == "search":
            self._report_progress(event.time)

    def _report_result(self, event: ResultReported) -> None:
        if event.kind == "ledger":
            named = {f"ledger_{name}": value for name, value in event.metrics.items()}
            number = len(self.state.results["ledger"]) - 1
            self._runs.update(SWEEP, event.time, points=points(named, event.time, number))
            return
        key = self.latest(event.kind)
        stage = self.state.stages["select" if event.kind == "ensemble" else "distill"]
        started = stage.started if stage.open and stage.started is not None else event.time
        self._runs.update(
            key,
            started,
            params=params(event.params),
            tags={"quorum.kind": event.kind},
            points=points(event.metrics, event.time),
        )
        self._runs.end(key, "FINISHED", event.time)

    def _report_progress(self, time: float) -> None:
        """Add the search's counts and best scores, with the number of ended trials as step."""
        ended = self.state.trials.cohorts["search"].ended
        values: dict[str, Any] = {f"trials_{status}": ended.get(status, 0) for status in _STATUS}
        best = self.state.trials.best
        if best is not None and best.score is not None:
            values["best_val_nll"] = best.score.val_nll
            values["best_val_accuracy"] = best.score.val_accuracy
        self._runs.update(SWEEP, time, points=points(values, time, sum(ended.values())))


def _run_tags(event: RunStarted) -> dict[str, str]:
    """Return the tags and the description of the sweep's run."""
    machine = event.machine
    tags = {
        "quorum.kind": "sweep",
        "quorum.split_id": event.split_id,
        "quorum.fingerprint": event.fingerprint,
        "quorum.code_version": event.code_version,
        "quorum.sizes": ", ".join(f"{name} {size}" for name, size in event.sizes.items()),
        "quorum.machine": ", ".join(
            f"{machine[key]} {unit}".strip()
            for key, unit in _MACHINE_UNITS.items()
            if machine.get(key) is not None
        ),
        "mlflow.note.content": describe_run(event.spec),
    }
    return {key: str(value) for key, value in tags.items() if value}


def _active_values(recipe: Mapping[str, Any], space: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe without searched values whose condition fails."""

    def holds(name: str, allowed: Any) -> bool:
        return recipe.get(name) in (allowed if isinstance(allowed, list | tuple) else (allowed,))

    return {
        key: value
        for key, value in recipe.items()
        if all(holds(*pair) for pair in ((space.get(key) or {}).get("when") or {}).items())
    }


_NOT_METRICS = {"event", "time", "step", "epoch", "trial", "rung", "phase"}
_METRICS = {
    "temperature": "val_temperature",
    # MLflow shows metrics named system/… on a page of their own, over time.
    "seconds": "system/epoch_seconds",
    "images_per_second": "system/images_per_second",
    "peak_memory_bytes": "system/peak_memory_bytes",
}
_STATUS: dict[Status, RunStatus] = {
    "completed": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"
}  # fmt: skip
_MACHINE_UNITS = {"processor": "", "cores": "cores", "gpu": "", "memory_gib": "GiB"}
