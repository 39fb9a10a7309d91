"""The MLflow runs of a sweep as values, and their changes since they were last written.

MLflow's parameters and tags are text, and its metrics are finite numbers. A run that has ended
carries a digest of everything that its events said, which shows whether a store has it all.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

RunStatus = Literal["RUNNING", "FINISHED", "KILLED", "FAILED"]
Outcome = Literal["created", "updated", "same"]
"""Result of writing a change to its run."""

SWEEP = ""
"""Key of the sweep's own run; the key of any other run is its name."""
DIGEST = "quorum.digest"
"""Tag of a run that has ended: the digest of everything that was written."""
FORMAT = 2
"""Version of what is written for the same events; a higher one updates the views of old runs."""


class Point(NamedTuple):
    """One value of a metric."""

    name: str
    value: float
    timestamp_ms: int
    step: int


@dataclass(slots=True, kw_only=True)
class RunChange:
    """Changes of one run since the last `take`."""

    key: str
    name: str
    start_ms: int
    """Start of the run, in unix milliseconds."""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    status: RunStatus = "RUNNING"
    end_ms: int | None = None
    """End of the run, in unix milliseconds; None while it is open."""
    recipe: Mapping[str, Any] | None = None
    """The whole recipe of a trial that has ended, defaults included."""
    curve: tuple[str, ...] = ()
    """A line of comma-separated values (EPOCH_FIELDS) per epoch of a trial that has ended."""


@dataclass(slots=True, kw_only=True)
class _Run:
    name: str
    start: float
    last: float
    """Time of its last event."""
    status: RunStatus = "RUNNING"
    recipe: Mapping[str, Any] | None = None
    curve: list[str] = field(default_factory=list)
    digest: Any = field(default_factory=lambda: hashlib.sha256(bytes([FORMAT])))


class Runs:
    """The runs of one sweep, by key."""

    def __init__(self) -> None:
        """Start without runs."""
        self._runs: dict[str, _Run] = {}
        self._changes: dict[str, RunChange] = {}

    def take(self) -> list[RunChange]:
        """Return what changed since the last call, the sweep before its trials."""
        changes = sorted(self._changes.values(), key=lambda change: change.key)
        self._changes = {}
        return changes

    def update(
        self, key: str, time: float, *, name: str | None = None,
        params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None,
        points: list[Point] | None = None, recipe: Mapping[str, Any] | None = None,
        curve_row: str | None = None,
    ) -> None:  # fmt: skip
        """Add values to a run; the first call opens it, and a later call reopens it."""
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run(name=name or key, start=time, last=time)
        run.last = max(run.last, time)
        run.status = "RUNNING"
        run.digest.update(json.dumps([params, tags, points], sort_keys=True).encode())
        run.recipe = run.recipe if recipe is None else recipe
        run.curve += [] if curve_row is None else [curve_row]
        change = self._change(key, run)
        change.status, change.end_ms = "RUNNING", None
        change.params.update(params or {})
        change.tags.update(tags or {})
        change.points.extend(points or [])

    def end(self, key: str, status: RunStatus, time: float) -> None:
        """End a run."""
        run = self._runs[key]
        run.status = status
        change = self._change(key, run)
        change.status, change.end_ms = status, milliseconds(time)
        change.recipe, change.curve = run.recipe, tuple(run.curve)
        digest = run.digest.copy()
        digest.update(f"{status} {change.end_ms}".encode())
        change.tags[DIGEST] = digest.hexdigest()[:16]

    def kill_open_trials(self) -> None:
        """End every open run below the sweep's as KILLED, at the time of its last event."""
        for key, run in self._runs.items():
            if key != SWEEP and run.status == "RUNNING":
                self.end(key, "KILLED", run.last)

    def _change(self, key: str, run: _Run) -> RunChange:
        if key not in self._changes:
            self._changes[key] = RunChange(key=key, name=run.name, start_ms=milliseconds(run.start))
        return self._changes[key]


def points(values: Mapping[str, Any], time: float, step: int = 0) -> list[Point]:
    """Return the finite numbers among `values` as points; MLflow shows nothing else."""
    return [
        Point(name, float(value), milliseconds(time), step)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ]


def params(mapping: Mapping[str, Any]) -> dict[str, str]:
    """Return plain values as parameters, one level flattened.

    Null, empty values and the description are left out.
    """
    named: dict[str, str] = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            named |= {f"{name}.{k}": _text(item) for k, item in value.items() if item is not None}
        elif name != "description" and value is not None:
            named[str(name)] = _text(value)
    return {name: text for name, text in named.items() if text}


def milliseconds(time: float) -> int:
    """Convert unix seconds to the milliseconds that MLflow counts in."""
    return round(time * 1000)


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, float):
        return str(float(f"{value:.6g}"))  # recipe.yaml has all digits
    return str(value)
