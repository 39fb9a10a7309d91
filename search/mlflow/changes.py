"""What a view of a run consists of, run by run, and what is new since it was last taken.

A run of MLflow's is told things until it is over. Its digest, of all that it was told, says
whether a store has everything.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from search.mlflow.values import Point, milliseconds

RunStatus = Literal["RUNNING", "FINISHED", "KILLED", "FAILED"]

SWEEP = ""
"""The key of the sweep's own run; other runs have their name for a key."""
DIGEST = "quorum.digest"
"""The tag that says of a run that is over: everything arrived."""
FORM = 2
"""Of what is written for the same events; a higher one brings views of old runs up to date."""


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
    """Of a trial that is over: for each epoch a line of comma-separated values, `EPOCH_FIELDS`."""


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


class Changes:
    """The runs of one view, by their keys."""

    def __init__(self) -> None:
        """None yet."""
        self._runs: dict[str, _Run] = {}
        self._changes: dict[str, RunChange] = {}

    def take(self) -> list[RunChange]:
        """What changed since the last call, the sweep before its trials."""
        changes = sorted(self._changes.values(), key=lambda change: change.key)
        self._changes = {}
        return changes

    def say(
        self, key: str, time: float, *, name: str | None = None,
        params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None,
        points: list[Point] | None = None, recipe: Mapping[str, Any] | None = None,
        curve: str | None = None,
    ) -> None:  # fmt: skip
        """Tell something of a run; the first time makes it. `curve` is one line more of it."""
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run(name=name or key, start=time, last=time)
        run.last = max(run.last, time)
        run.status = "RUNNING"
        run.digest.update(json.dumps([params, tags, points], sort_keys=True).encode())
        run.recipe = run.recipe if recipe is None else recipe
        run.curve += [] if curve is None else [curve]
        change = self._change(key, run)
        change.status, change.end_ms = "RUNNING", None
        change.params.update(params or {})
        change.tags.update(tags or {})
        change.points.extend(points or [])
        if run.final is not None:  # a straggler does not open it again
            self.close(key, *run.final)

    def end(self, key: str, status: RunStatus, time: float) -> None:
        """It is over for good."""
        self._runs[key].final = (status, time)
        self.close(key, status, time)

    def close(self, key: str, status: RunStatus, time: float) -> None:
        """It is over, unless it is told something again."""
        run = self._runs[key]
        run.status = status
        change = self._change(key, run)
        change.status, change.end_ms = status, milliseconds(time)
        change.recipe, change.curve = run.recipe, tuple(run.curve)
        final = run.digest.copy()
        final.update(f"{status} {change.end_ms}".encode())
        change.tags[DIGEST] = final.hexdigest()[:16]

    def halt(self) -> None:
        """Whatever runs below the sweep was broken off when it was last heard of."""
        for key, run in self._runs.items():
            if key != SWEEP and run.status == "RUNNING":
                self.close(key, "KILLED", run.last)

    def _change(self, key: str, run: _Run) -> RunChange:
        if key not in self._changes:
            self._changes[key] = RunChange(key=key, name=run.name, start_ms=milliseconds(run.start))
        return self._changes[key]
