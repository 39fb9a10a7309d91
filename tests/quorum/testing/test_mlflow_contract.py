"""The contract suite of MLflow stores catches stores that break the contract."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from quorum.testing.mlflow import MlflowStoreContract, StoredRun
from search.mlflow.projection import Projection
from search.mlflow.runs import DIGEST, Outcome, RunChange
from search.mlflow.writing import Target
from tests.search.mlflow.mirrored import FakeConnection, FakeStore, Runs
from trainables.records import RunFolder

Write = Callable[[FakeConnection, RunChange], Outcome]


class Contract(MlflowStoreContract):
    """The suite on a store in memory whose `write` is replaced."""

    def __init__(self, write: Write) -> None:
        self.broken_write = write
        self.store = FakeStore()

    def connect(self, folder: RunFolder, projection: Projection) -> Target:
        return Broken(self.store.connect("", folder, projection), self.broken_write)

    def read(self, folder: RunFolder, identity: str) -> list[StoredRun]:
        return self.store.sweeps[identity].stored()


class Broken:
    """A connection whose `write` is replaced."""

    def __init__(self, connection: FakeConnection, write: Write) -> None:
        self._connection = connection
        self._write = write

    def write(self, change: RunChange) -> Outcome:
        return self._write(self._connection, change)


def drop_a_metric(connection: FakeConnection, change: RunChange) -> Outcome:
    return connection.write(replace(change, points=change.points[1:]))


def keep_one_value_per_metric(connection: FakeConnection, change: RunChange) -> Outcome:
    last = {point.name: point for point in change.points}
    return connection.write(replace(change, points=list(last.values())))


def lose_tags(connection: FakeConnection, change: RunChange) -> Outcome:
    outcome = connection.write(change)
    connection.runs[change.key]["tags"] = dict(change.tags)
    return outcome


def keep_the_first_tags(connection: FakeConnection, change: RunChange) -> Outcome:
    known = connection.runs.get(change.key, {"tags": {}})["tags"]
    return connection.write(replace(change, tags={**change.tags, **known}))


def lose_parameters(connection: FakeConnection, change: RunChange) -> Outcome:
    return connection.write(replace(change, params={}))


def overwrite_parameters(connection: FakeConnection, change: RunChange) -> Outcome:
    outcome = connection.write(change)
    connection.runs[change.key]["params"].update(change.params)
    return outcome


def write_one_batch(connection: FakeConnection, change: RunChange) -> Outcome:
    return connection.write(replace(change, points=change.points[:1000]))


def never_end(connection: FakeConnection, change: RunChange) -> Outcome:
    return connection.write(replace(change, status="RUNNING", end_ms=None))


def never_reopen(connection: FakeConnection, change: RunChange) -> Outcome:
    known = connection.runs.get(change.key)
    if known and known["status"] != "RUNNING":
        return "same"
    return connection.write(change)


def fail_as_finished(connection: FakeConnection, change: RunChange) -> Outcome:
    failed = change.status == "FAILED"
    return connection.write(replace(change, status="FINISHED") if failed else change)


def always_create(connection: FakeConnection, change: RunChange) -> Outcome:
    connection.write(change)
    return "created"


def forget_the_digest(connection: FakeConnection, change: RunChange) -> Outcome:
    tags = {name: value for name, value in change.tags.items() if name != DIGEST}
    return connection.write(replace(change, tags=tags))


class Duplicating(MlflowStoreContract):
    """Every connection creates the runs anew."""

    def __init__(self) -> None:
        self.stores: list[FakeStore] = []

    def connect(self, folder: RunFolder, projection: Projection) -> Target:
        self.stores.append(FakeStore())
        return self.stores[-1].connect("", folder, projection)

    def read(self, folder: RunFolder, identity: str) -> list[StoredRun]:
        every: Iterable[Runs] = (store.sweeps.get(identity, Runs()) for store in self.stores)
        return [run for runs in every for run in runs.stored()]


class Repeating(Contract):
    """A repeated value of a metric is stored once more."""

    def __init__(self) -> None:
        self.writes = 0
        super().__init__(self.count)

    def count(self, connection: FakeConnection, change: RunChange) -> Outcome:
        self.writes += 1
        time = self.writes
        points = [point._replace(timestamp_ms=point.timestamp_ms + time) for point in change.points]
        return connection.write(replace(change, points=points))


class Mixing(Contract):
    """All sweeps share their runs, which are found by their keys alone."""

    def __init__(self) -> None:
        super().__init__(FakeConnection.write)

    def connect(self, folder: RunFolder, projection: Projection) -> Target:
        shared = next(iter(self.store.sweeps.values()), Runs())
        self.store.sweeps[projection.identity] = shared
        return self.store.connect("", folder, projection)


WHOLE, ADDING, OUTCOMES, REPEAT, PARAMETER, TAG, REOPENED, FAILED, LONG, APART = (
    name for name in vars(MlflowStoreContract) if name.startswith("test_")
)  # in the order of the suite


@pytest.mark.parametrize(
    ("contract", "test"),
    [
        (Contract(drop_a_metric), WHOLE),
        (Contract(keep_one_value_per_metric), WHOLE),
        (Contract(lose_parameters), WHOLE),
        (Contract(never_end), WHOLE),
        (Contract(lose_tags), ADDING),
        (Contract(always_create), OUTCOMES),
        (Contract(forget_the_digest), OUTCOMES),
        (Duplicating(), REPEAT),
        (Repeating(), REPEAT),
        (Contract(overwrite_parameters), PARAMETER),
        (Contract(keep_the_first_tags), TAG),
        (Contract(never_reopen), REOPENED),
        (Contract(fail_as_finished), FAILED),
        (Contract(write_one_batch), LONG),
        (Mixing(), APART),
    ],
)
def test_a_broken_store_fails(contract: MlflowStoreContract, test: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "simulated")
    with pytest.raises(AssertionError):
        getattr(contract, test)(folder)


def test_an_unbroken_store_passes(tmp_path: Path) -> None:
    """The failures above come from the faults, not from the wrapper."""
    for test in (WHOLE, ADDING, OUTCOMES, REPEAT, PARAMETER, TAG, REOPENED, FAILED, LONG, APART):
        contract = Contract(FakeConnection.write)
        getattr(contract, test)(RunFolder(tmp_path / test))
