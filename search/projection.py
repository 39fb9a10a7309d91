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
from dataclasses import dataclass, field
from typing import Any, Literal

from search.mlflow_values import Point, about, flat, milliseconds, points
from search.notes import trial_note
from search.progress import RunState
from search.states import Event

RunStatus = Literal["RUNNING", "FINISHED", "KILLED", "FAILED"]

SWEEP = ""
"""The key of the sweep's own run; other runs have their name for a key."""
DIGEST = "quorum.digest"
"""The tag that says of a run that is over: everything arrived."""
FORM = 2
"""Of what is written for the same events; a higher one brings views of old runs up to date."""
CURVE = (
    "step", "epoch", "phase", "rung", "train_loss", "val_nll", "val_accuracy", "temperature", "lr",
    "seconds", "images_per_second", "peak_memory_bytes",
)  # fmt: skip
"""The columns of a trial's curve: fields of its epoch events."""


@dataclass(slots=True, kw_only=True)
class RunChange:
    """What is new about one run since it was last taken."""

    key: str
    name: str
    start_ms: int
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    status: RunStatus = "RUNNING"
    end_ms: int | None = None
    """Set when it is over."""
    recipe: Mapping[str, Any] | None = None
    """Of a trial that is over: all that it trained with, the values at their defaults too."""
    curve: tuple[str, ...] = ()
    """Of a trial that is over: a line of comma-separated values for each epoch, as in `CURVE`."""


@dataclass(slots=True, kw_only=True)
class _Run:
    name: str
    start: float
    last: float
    status: RunStatus = "RUNNING"
    final: tuple[RunStatus, float] | None = None
    """How and when it ended, once its own events say so."""
    recipe: Mapping[str, Any] | None = None
    curve: list[str] = field(default_factory=list)
    digest: Any = field(default_factory=lambda: hashlib.sha256(bytes([FORM])))
    """Of all that its events said."""


class Projection:
    """The runs that a journal's events amount to, and what changed in them last."""

    def __init__(self) -> None:
        """No events yet."""
        self.state = RunState()
        self.identity = ""
        """Tells this run from any other of the same name; empty before run_started."""
        self._runs: dict[str, _Run] = {}
        self._changes: dict[str, RunChange] = {}
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
        self._halt()
        over = not self.state.interrupted and not self.state.active
        self._close(SWEEP, "FINISHED" if over else "KILLED", self.state.last_time)

    def latest(self, kind: str) -> str:
        """The key of the last result of this kind.

        A second one is another run: MLflow does not let the parameters of the first change.
        """
        times = self._results.get(kind, ())
        return kind if len(times) < 2 else f"{kind} ({len(times)})"

    def take(self) -> list[RunChange]:
        """What changed since the last call, the sweep before its trials."""
        changes = sorted(self._changes.values(), key=lambda change: change.key)
        self._changes = {}
        return changes

    def _run_started(self, event: Event, time: float) -> None:
        if self.identity:
            return
        text = json.dumps(dict(event), sort_keys=True, default=str)
        self.identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        spec = event.get("spec") or {}
        name = str(event.get("run") or spec.get("name") or "run")
        self._say(SWEEP, time, name=name, params=flat(spec), tags=about(event, spec))

    def _run_resumed(self, event: Event, time: float) -> None:
        if time in self.state.resumes:
            return
        self._halt()
        tags = {"quorum.resumes": str(len(self.state.resumes) + 1)}
        if event.get("code_version"):
            tags["quorum.code_version"] = str(event["code_version"])
        self._say(SWEEP, time, tags=tags)

    def _trial_started(self, event: Event, time: float) -> None:
        name, attempt = str(event["trial"]), int(event.get("attempt", 1))
        known = self.state.trials.get(name)
        if known is not None and attempt <= known.attempt and time <= known.seen:
            return
        recipe = event.get("recipe", {})
        params = {**self._in_force(recipe), "seed": event.get("seed")}
        params["number"] = event.get("number")
        tags = {"quorum.kind": str(event.get("kind", "search"))}
        tags["quorum.attempts"] = str(attempt)
        self._say(name, time, params=flat(params), tags=tags)
        self._runs[name].recipe = recipe

    def _in_force(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """The recipe without searched values that a condition of the space switched off."""
        space = self.state.spec.get("space") or {}
        return {
            key: value
            for key, value in recipe.items()
            if all(
                recipe.get(other) in (wanted if isinstance(wanted, list | tuple) else (wanted,))
                for other, wanted in ((space.get(key) or {}).get("when") or {}).items()
            )
        }

    def _trial_retried(self, event: Event, time: float) -> None:
        name, attempt = str(event["trial"]), int(event.get("attempt", 2))
        known = self.state.trials.get(name)
        if known is None or attempt not in known.retries:
            reason = str(event.get("reason", ""))
            self._say(
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
        self._say(name, time, points=points(values, time, step))
        told = (event.get(column) for column in CURVE)
        self._runs[name].curve.append(",".join("" if v is None else str(v) for v in told))

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
        self._say(name, time, tags=tags, points=seconds)
        self._end(name, _STATUS.get(status, "FAILED"), time)
        if str(event.get("kind", "search")) == "search":
            self._tally(status, time)

    def _sweep_ended(self, event: Event, time: float) -> None:
        end = self.state.ends.get(str(event.get("kind")))
        if end is None or time > end["time"]:
            self._halt()

    def _stage(self, event: Event, time: float) -> None:
        stage = self.state.stages.get(str(event.get("stage")))
        if event.get("status") != "finished" or stage is None or stage.status == "finished":
            return
        seconds = stage.seconds(time)
        self._say(SWEEP, time, points=points({f"seconds_{event['stage']}": seconds}, time))

    def _result(self, event: Event, time: float) -> None:
        kind, metrics = str(event["kind"]), event.get("metrics") or {}
        times = self._results.setdefault(kind, [])
        if time in times:
            return
        times.append(time)
        if kind == "ledger":
            named = {f"ledger_{name}": value for name, value in metrics.items()}
            self._say(SWEEP, time, points=points(named, time, len(times) - 1))
            return
        key = self.latest(kind)
        stage = self.state.stages["select" if kind == "ensemble" else "distill"]
        begun = stage.started if stage.open and stage.started is not None else time
        self._say(key, begun, params=flat(event.get("params") or {}),
                  tags={"quorum.kind": kind},
                  points=points(metrics, time))  # fmt: skip
        self._end(key, "FINISHED", time)

    def _registered(self, event: Event, time: float) -> None:
        if self.state.registered is not None and time <= self.state.registered["time"]:
            return
        tag = f"{event.get('name')} version {event.get('version')}, {event.get('alias')}"
        self._say(SWEEP, time, tags={"quorum.registered": tag})

    def _tally(self, status: str, time: float) -> None:
        """How far the search is, over the number of trials that have ended."""
        self._ended[f"trials_{status}"] = self._ended.get(f"trials_{status}", 0) + 1
        values: dict[str, Any] = {**self._ended}
        best = self.state.best
        if best is not None and best.score is not None:
            values["best_val_nll"], values["best_val_accuracy"] = best.score
        self._say(SWEEP, time, points=points(values, time, sum(self._ended.values())))

    def _say(
        self, key: str, time: float, *, name: str | None = None,
        params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None,
        points: list[Point] | None = None,
    ) -> None:  # fmt: skip
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run(name=name or key, start=time, last=time)
        run.last = max(run.last, time)
        run.status = "RUNNING"
        run.digest.update(json.dumps([params, tags, points], sort_keys=True).encode())
        change = self._change(key, run)
        change.status, change.end_ms = "RUNNING", None
        change.params.update(params or {})
        change.tags.update(tags or {})
        change.points.extend(points or [])
        if run.final is not None:  # a straggler does not open it again
            self._close(key, *run.final)

    def _end(self, key: str, status: RunStatus, time: float) -> None:
        self._runs[key].final = (status, time)
        self._close(key, status, time)

    def _close(self, key: str, status: RunStatus, time: float) -> None:
        run = self._runs[key]
        run.status = status
        change = self._change(key, run)
        change.status, change.end_ms = status, milliseconds(time)
        change.recipe, change.curve = run.recipe, tuple(run.curve)
        final = run.digest.copy()
        final.update(f"{status} {change.end_ms}".encode())
        change.tags[DIGEST] = final.hexdigest()[:16]

    def _change(self, key: str, run: _Run) -> RunChange:
        if key not in self._changes:
            self._changes[key] = RunChange(key=key, name=run.name, start_ms=milliseconds(run.start))
        return self._changes[key]

    def _halt(self) -> None:
        for key, run in self._runs.items():
            if key != SWEEP and run.status == "RUNNING":
                self._close(key, "KILLED", run.last)


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
