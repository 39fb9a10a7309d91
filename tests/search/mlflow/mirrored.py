"""A synthetic run, its expected MLflow runs, and a store in memory."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from journal.events import Event
from journal.journal import Journal
from quorum.testing.mlflow import StoredRun
from search.mlflow.mirror import MlflowMirror
from search.mlflow.projection import Projection
from search.mlflow.runs import DIGEST, Outcome, RunChange
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

    def stored(self) -> list[StoredRun]:
        return [
            StoredRun(
                key=key,
                name=run["name"],
                status=run["status"],
                end_ms=run["end"],
                params=run["params"],
                tags=run["tags"],
                points=list(run["points"]),
            )
            for key, run in self.items()
        ]


class FakeStore:
    """A store in memory that can hang or fail."""

    def __init__(self) -> None:
        self.sweeps: dict[str, Runs] = {}
        """Runs of each sweep, by its identity."""
        self.fails = False
        self.refuses: set[str] = set()
        """Runs that it refuses."""
        self.answers = threading.Event()
        """A write hangs while this is clear."""
        self.answers.set()
        self.connections = 0

    @property
    def runs(self) -> Runs:
        """The runs of the only sweep."""
        assert len(self.sweeps) <= 1
        return next(iter(self.sweeps.values()), Runs())

    def connect(self, uri: str, folder: RunFolder, projection: Projection) -> "FakeConnection":
        self.connections += 1
        self.respond()
        return FakeConnection(self, self.sweeps.setdefault(projection.identity, Runs()))

    def respond(self) -> None:
        if self.fails:
            raise ConnectionError("nobody answers")


class FakeConnection:
    """A connection to one sweep in a FakeStore."""

    def __init__(self, store: FakeStore, runs: Runs) -> None:
        self.store = store
        self.runs = runs

    def write(self, change: RunChange) -> Outcome:
        self.store.respond()
        if change.key in self.store.refuses:
            raise ValueError(f"a value of {change.key} is too long")
        if not self.store.answers.wait(60):
            raise TimeoutError("the test never let the store answer")
        known = self.runs.get(change.key)
        digest = change.tags.get(DIGEST)
        if (
            known
            and digest
            and (known["tags"].get(DIGEST), known["status"])
            == (
                digest,
                change.status,
            )
        ):
            return "same"
        self.runs.write([change])
        return "updated" if known else "created"


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
