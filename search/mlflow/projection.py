"""What a journal looks like in MLflow: a view of its events as runs, without MLflow.

The sweep is a run, and each trial, seed, ensemble and student is a run below it. The same
events give the same runs, so the view can be brought up to date after an outage, or built
anew, from the journal.

A pruned trial did what was asked of it, so MLflow shows it as FINISHED and the tag
`quorum.status` tells it from one that completed; FAILED is a trial that broke by itself, KILLED
one that ended with its process. MLflow draws one red cross for the latter two.
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
from search.mlflow.changes import SWEEP, Changes, RunChange, RunStatus
from search.mlflow.notes import trial_note
from search.mlflow.values import about, flat, points


class Projection:
    """The MLflow runs of a journal's events, and what changed in them last."""

    def __init__(self) -> None:
        """Return the projection of no events."""
        self.state = RunState()
        self.identity = ""
        """Tells this run from any other of the same name; empty before run_started."""
        self._changes = Changes()

    @property
    def experiment(self) -> str:
        """The name of the MLflow experiment: one a sweep, so that its runs compare."""
        return f"quorum-{self.state.spec.get('name', 'sweep')}"

    def apply(self, event: Event) -> None:
        """Fold one event in; raises as `RunState.apply`."""
        self.state.apply(event)
        match event:
            case RunStarted():
                self._run_started(event)
            case RunResumed():
                self._run_resumed(event)
            case TrialStarted():
                self._trial_started(event)
            case TrialRetried():
                tags = {
                    "quorum.attempts": str(event.attempt),
                    "quorum.retry_reason": event.reason,
                }
                self._changes.say(event.trial, event.time, tags=tags)
            case EpochEnded():
                self._epoch(event)
            case TrialEnded():
                self._trial_ended(event)
            case SweepEnded():
                self._changes.halt()
            case StageReported() if event.status == "finished":
                seconds = self.state.stages[event.stage].seconds(event.time)
                values = points({f"seconds_{event.stage}": seconds}, event.time)
                self._changes.say(SWEEP, event.time, points=values)
            case ResultReported():
                self._result(event)
            case ModelRegistered():
                tag = f"{event.name} version {event.version}, {event.alias}"
                self._changes.say(SWEEP, event.time, tags={"quorum.registered": tag})

    def close(self) -> None:
        """Close the runs that are still open: no process works on them any more."""
        if not self.identity:
            return
        self._changes.halt()
        over = not self.state.interrupted and not self.state.active
        self._changes.close(SWEEP, "FINISHED" if over else "KILLED", self.state.last_time)

    def latest(self, kind: str) -> str:
        """Return the key of the last result of this kind.

        A second one is another run: MLflow does not let the parameters of the first change.
        """
        results = self.state.results.get(kind, ())
        return kind if len(results) < 2 else f"{kind} ({len(results)})"

    def take(self) -> list[RunChange]:
        """Return what changed since the last call, the sweep before its trials."""
        return self._changes.take()

    def _run_started(self, event: RunStarted) -> None:
        text = json.dumps(encode(event), sort_keys=True, default=str)
        self.identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        name = event.run or str(event.spec.get("name") or "run")
        params, tags = flat(event.spec), about(event)
        self._changes.say(SWEEP, event.time, name=name, params=params, tags=tags)

    def _run_resumed(self, event: RunResumed) -> None:
        self._changes.halt()
        tags = {"quorum.resumes": str(len(self.state.resumes))}
        if event.code_version:
            tags["quorum.code_version"] = event.code_version
        self._changes.say(SWEEP, event.time, tags=tags)

    def _trial_started(self, event: TrialStarted) -> None:
        params = {
            **_in_force(event.recipe, self.state.spec.get("space") or {}),
            "seed": event.seed,
            "number": event.number,
        }
        tags = {"quorum.kind": event.kind, "quorum.attempts": str(event.attempt)}
        self._changes.say(
            event.trial, event.time, params=flat(params), tags=tags, recipe=event.recipe
        )

    def _epoch(self, event: EpochEnded) -> None:
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
        curve = ",".join("" if cell is None else str(cell) for cell in cells)
        self._changes.say(
            event.trial, event.time, points=points(values, event.time, event.step), curve=curve
        )

    def _trial_ended(self, event: TrialEnded) -> None:
        tags = {"quorum.status": str(event.status)}
        if event.reason:
            tags["quorum.reason"] = event.reason
            tags["mlflow.note.content"] = trial_note(event.status, event.reason, event.traceback)
        seconds = points({"train_seconds": event.seconds}, event.time, event.steps)
        self._changes.say(event.trial, event.time, tags=tags, points=seconds)
        self._changes.end(event.trial, _STATUS[event.status], event.time)
        if event.kind == "search":
            self._tally(event.time)

    def _result(self, event: ResultReported) -> None:
        if event.kind == "ledger":
            named = {f"ledger_{name}": value for name, value in event.metrics.items()}
            number = len(self.state.results["ledger"]) - 1
            self._changes.say(SWEEP, event.time, points=points(named, event.time, number))
            return
        key = self.latest(event.kind)
        stage = self.state.stages["select" if event.kind == "ensemble" else "distill"]
        begun = stage.started if stage.open and stage.started is not None else event.time
        self._changes.say(
            key,
            begun,
            params=flat(event.params),
            tags={"quorum.kind": event.kind},
            points=points(event.metrics, event.time),
        )
        self._changes.end(key, "FINISHED", event.time)

    def _tally(self, time: float) -> None:
        """Report the search's progress over the number of trials that have ended."""
        ended = self.state.cohorts["search"].ended
        values: dict[str, Any] = {f"trials_{status}": ended.get(status, 0) for status in _STATUS}
        best = self.state.best
        if best is not None and best.score is not None:
            values["best_val_nll"] = best.score.val_nll
            values["best_val_accuracy"] = best.score.val_accuracy
        self._changes.say(SWEEP, time, points=points(values, time, sum(ended.values())))


def _in_force(recipe: Mapping[str, Any], space: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without searched values that a condition of the space switched off."""

    def holds(other: str, wanted: Any) -> bool:
        return recipe.get(other) in (wanted if isinstance(wanted, list | tuple) else (wanted,))

    return {
        key: value
        for key, value in recipe.items()
        if all(holds(*pair) for pair in ((space.get(key) or {}).get("when") or {}).items())
    }


_NOT_METRICS = {"event", "time", "step", "epoch", "trial", "rung", "phase"}
_METRICS = {
    "temperature": "val_temperature",
    # MLflow shows metrics named system/… on a page of its own, over time.
    "seconds": "system/epoch_seconds",
    "images_per_second": "system/images_per_second",
    "peak_memory_bytes": "system/peak_memory_bytes",
}
_STATUS: dict[Status, RunStatus] = {
    "completed": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"
}  # fmt: skip
