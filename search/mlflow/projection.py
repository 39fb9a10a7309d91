"""What a journal looks like in MLflow: a fold from events to runs, without MLflow.

The sweep is a run, and each trial, seed, ensemble and student is a run below it. The same
events give the same runs, so the view can be brought up to date after an outage, or built
anew, by folding the journal again; a repeated event changes nothing.

A pruned trial did what was asked of it, so MLflow shows it as FINISHED and the tag
`quorum.status` tells it from one that completed; FAILED is what broke by itself, KILLED what
was broken off with the sweep. MLflow draws one red cross for the latter two.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from journal.progress import RunState
from journal.states import EPOCH_FIELDS, Event
from search.mlflow.changes import SWEEP, Changes, RunChange, RunStatus
from search.mlflow.notes import trial_note
from search.mlflow.values import about, flat, points


class Projection:
    """The runs that a journal's events amount to, and what changed in them last."""

    def __init__(self) -> None:
        """No events yet."""
        self.state = RunState()
        self.identity = ""
        """Tells this run from any other of the same name; empty before run_started."""
        self._changes = Changes()
        self._results: dict[str, list[float]] = {}
        self._ended = {"trials_completed": 0, "trials_pruned": 0, "trials_failed": 0}

    @property
    def experiment(self) -> str:
        """The name of the MLflow experiment: one a sweep, so that its runs compare."""
        return f"quorum-{self.state.spec.get('name', 'sweep')}"

    def apply(self, event: Event) -> None:
        """Fold one event in."""
        handler = _HANDLERS.get(str(event.get("event")))
        if handler is not None and (self.identity or event["event"] == "run_started"):
            handler(self, event, float(event["time"]))
        self.state.apply(event)

    def close(self) -> None:
        """Nobody works on the run any more: what still runs was broken off."""
        if not self.identity:
            return
        self._changes.halt()
        over = not self.state.interrupted and not self.state.active
        self._changes.close(SWEEP, "FINISHED" if over else "KILLED", self.state.last_time)

    def latest(self, kind: str) -> str:
        """The key of the last result of this kind.

        A second one is another run: MLflow does not let the parameters of the first change.
        """
        times = self._results.get(kind, ())
        return kind if len(times) < 2 else f"{kind} ({len(times)})"

    def take(self) -> list[RunChange]:
        """What changed since the last call, the sweep before its trials."""
        return self._changes.take()

    def _run_started(self, event: Event, time: float) -> None:
        if self.identity:
            return
        text = json.dumps(dict(event), sort_keys=True, default=str)
        self.identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        spec = event.get("spec") or {}
        name = str(event.get("run") or spec.get("name") or "run")
        self._changes.say(SWEEP, time, name=name, params=flat(spec), tags=about(event, spec))

    def _run_resumed(self, event: Event, time: float) -> None:
        if time in self.state.resumes:
            return
        self._changes.halt()
        tags = {"quorum.resumes": str(len(self.state.resumes) + 1)}
        if event.get("code_version"):
            tags["quorum.code_version"] = str(event["code_version"])
        self._changes.say(SWEEP, time, tags=tags)

    def _trial_started(self, event: Event, time: float) -> None:
        name, attempt = str(event["trial"]), int(event.get("attempt", 1))
        known = self.state.trials.get(name)
        if known is not None and attempt <= known.attempt and time <= known.seen:
            return
        recipe = event.get("recipe", {})
        params = {
            **_in_force(recipe, self.state.spec.get("space") or {}),
            "seed": event.get("seed"),
            "number": event.get("number"),
        }
        tags = {
            "quorum.kind": str(event.get("kind", "search")),
            "quorum.attempts": str(attempt),
        }
        self._changes.say(name, time, params=flat(params), tags=tags, recipe=recipe)

    def _trial_retried(self, event: Event, time: float) -> None:
        name, attempt = str(event["trial"]), int(event.get("attempt", 2))
        known = self.state.trials.get(name)
        if known is None or attempt not in known.retries:
            reason = str(event.get("reason", ""))
            self._changes.say(
                name, time, tags={"quorum.attempts": str(attempt), "quorum.retry_reason": reason}
            )

    def _epoch(self, event: Event, time: float) -> None:
        name, step = str(event["trial"]), int(event["step"])
        known = self.state.trials.get(name)
        if known is not None and step in known.steps:
            return
        values = {
            _METRICS.get(key, key): value for key, value in event.items() if key not in _NOT_METRICS
        }
        rung = event.get("rung")
        if rung is not None:
            width = len(str(max((99, *self.state.rungs))))
            for metric in ("val_nll", "val_accuracy"):
                values[f"{metric}_at_{rung:0{width}d}"] = event.get(metric)
            values["rung"] = rung
        told = (event.get(column) for column in EPOCH_FIELDS)
        curve = ",".join("" if value is None else str(value) for value in told)
        self._changes.say(name, time, points=points(values, time, step), curve=curve)

    def _trial_ended(self, event: Event, time: float) -> None:
        name, status = str(event["trial"]), str(event.get("status"))
        known = self.state.trials.get(name)
        if known is not None and known.outcome is not None:
            return
        tags = {"quorum.status": status}
        reason = str(event.get("reason") or "")
        if reason:
            tags["quorum.reason"] = reason
            tags["mlflow.note.content"] = trial_note(status, reason, event.get("traceback"))
        seconds = points({"train_seconds": event.get("seconds")}, time, event.get("steps") or 0)
        self._changes.say(name, time, tags=tags, points=seconds)
        self._changes.end(name, _STATUS.get(status, "FAILED"), time)
        if str(event.get("kind", "search")) == "search":
            self._tally(status, time)

    def _sweep_ended(self, event: Event, time: float) -> None:
        end = self.state.ends.get(str(event.get("kind")))
        if end is None or time > end["time"]:
            self._changes.halt()

    def _stage(self, event: Event, time: float) -> None:
        stage = self.state.stages.get(str(event.get("stage")))
        if event.get("status") != "finished" or stage is None or stage.status == "finished":
            return
        seconds = stage.seconds(time)
        self._changes.say(SWEEP, time, points=points({f"seconds_{event['stage']}": seconds}, time))

    def _result(self, event: Event, time: float) -> None:
        kind, metrics = str(event["kind"]), event.get("metrics") or {}
        times = self._results.setdefault(kind, [])
        if time in times:
            return
        times.append(time)
        if kind == "ledger":
            named = {f"ledger_{name}": value for name, value in metrics.items()}
            self._changes.say(SWEEP, time, points=points(named, time, len(times) - 1))
            return
        key = self.latest(kind)
        stage = self.state.stages["select" if kind == "ensemble" else "distill"]
        begun = stage.started if stage.open and stage.started is not None else time
        params, tags = flat(event.get("params") or {}), {"quorum.kind": kind}
        self._changes.say(key, begun, params=params, tags=tags, points=points(metrics, time))
        self._changes.end(key, "FINISHED", time)

    def _registered(self, event: Event, time: float) -> None:
        if self.state.registered is not None and time <= self.state.registered["time"]:
            return
        tag = f"{event.get('name')} version {event.get('version')}, {event.get('alias')}"
        self._changes.say(SWEEP, time, tags={"quorum.registered": tag})

    def _tally(self, status: str, time: float) -> None:
        """How far the search is, over the number of trials that have ended."""
        self._ended[f"trials_{status}"] = self._ended.get(f"trials_{status}", 0) + 1
        values: dict[str, Any] = {**self._ended}
        best = self.state.best
        if best is not None and best.score is not None:
            values["best_val_nll"], values["best_val_accuracy"] = best.score
        self._changes.say(SWEEP, time, points=points(values, time, sum(self._ended.values())))


def _in_force(recipe: Mapping[str, Any], space: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without searched values that a condition of the space switched off."""

    def holds(other: str, wanted: Any) -> bool:
        return recipe.get(other) in (wanted if isinstance(wanted, list | tuple) else (wanted,))

    return {
        key: value
        for key, value in recipe.items()
        if all(holds(*pair) for pair in ((space.get(key) or {}).get("when") or {}).items())
    }


_NOT_METRICS = {"time", "step", "epoch", "trial", "rung"}
_METRICS = {
    "temperature": "val_temperature",
    # MLflow shows what is called system/… on a page of its own, over time.
    "seconds": "system/epoch_seconds",
    "images_per_second": "system/images_per_second",
    "peak_memory_bytes": "system/peak_memory_bytes",
}
_STATUS: dict[str, RunStatus] = {
    "completed": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"
}  # fmt: skip

_HANDLERS = {
    "run_started": Projection._run_started,
    "run_resumed": Projection._run_resumed,
    "trial_started": Projection._trial_started,
    "trial_retried": Projection._trial_retried,
    "trial_ended": Projection._trial_ended,
    "epoch": Projection._epoch,
    "sweep_ended": Projection._sweep_ended,
    "stage": Projection._stage,
    "result": Projection._result,
    "registered": Projection._registered,
}
