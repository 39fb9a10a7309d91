"""A synthetic run, its expected MLflow runs, and a store in memory."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from journal.events import Event
from journal.journal import Journal
from search.mlflow.mirror import MlflowMirror
from search.mlflow.projection import Projection
from search.mlflow.runs import Outcome, RunChange
from tests.synthetic_sweep import SPEC, synthetic_chain, synthetic_sweep
from trainables.records import RunFolder


def _whole_run() -> list[Event]:
    sweep = list(synthetic_sweep(spec={**SPEC, "trials": 6}, fail=(5,), retry=(1,)))
    return sweep + list(synthetic_chain(start=sweep[-1].time))


EVENTS = _whole_run()
"""A whole run of six trials: the last one fails, the second is retried."""


class Runs(dict[str, dict[str, Any]]):
    """The runs of a store, by key."""

    def write(self, changes: Iterable[RunChange]) -> None:
        for change in changes:
            run = self.setdefault(change.key, {"params": {}, "tags": {}, "points": set()})
            run["params"] = {**change.params, **run["params"]}
            run["tags"].update(change.tags)
            run["points"].update(change.points)
            run |= {"curve": change.curve} if change.curve else {}
            run |= {"status": change.status, "end": change.end_ms, "name": change.name}


class FakeStore:
    """A store in memory that can hang or fail."""

    def __init__(self) -> None:
        self.runs = Runs()
        self.fails = False
        self.answers = threading.Event()
        """A write hangs while this is clear."""
        self.answers.set()
        self.connections = 0

    def connect(self, uri: str, folder: RunFolder, projection: Projection) -> "FakeStore":
        self.connections += 1
        self._respond()
        return self

    def write(self, change: RunChange) -> Outcome:
        self._respond()
        if not self.answers.wait(60):
            raise TimeoutError("the test never let the store answer")
        self.runs.write([change])
        return "updated"

    def _respond(self) -> None:
        if self.fails:
            raise ConnectionError("nobody answers")


def projection_of(events: Iterable[Event]) -> Projection:
    projection = Projection()
    for event in events:
        projection.apply(event)
    return projection


def projected(events: Iterable[Event]) -> dict[str, RunChange]:
    """Project a run that no process works on any more."""
    projection = projection_of(events)
    projection.close()
    return {change.key: change for change in projection.take()}


def expected_runs(events: Iterable[Event] = EVENTS) -> Runs:
    runs = Runs()
    runs.write(projected(events).values())
    return runs


def write_journal(
    folder: RunFolder, events: Iterable[Event], mirror: MlflowMirror | None = None
) -> None:
    with Journal(folder.journal) as journal:
        for event in events:
            written = journal.append(event)
            if mirror is not None:
                mirror.handle(written)


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    """Return once the condition holds; `seconds` only keeps a failing test from hanging."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(condition())
