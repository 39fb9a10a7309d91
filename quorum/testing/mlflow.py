"""Tests that every store of MLflow runs passes (`search.mlflow.writing.Target`).

class TestMyStore(MlflowStoreContract):
    def connect(self, folder: RunFolder, projection: Projection) -> Target:
        return MyStore(folder.root.parent / "my.db", projection)

    def read(self, folder: RunFolder, identity: str) -> list[StoredRun]:
        ...  # every run that the store has of the sweep `identity`
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest

from journal.events import EpochEnded, Event, RunStarted, Status, TrialEnded, TrialStarted
from search.mlflow.projection import Projection
from search.mlflow.runs import SWEEP, Outcome, Point, RunChange
from search.mlflow.writing import Target
from trainables.records import RunFolder

TRIAL = "t0000"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run as read back from a store."""

    key: str
    """SWEEP, or the trial's name."""
    name: str
    status: str
    end_ms: int | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    """All tags; a store may add some to those that were written."""
    points: Sequence[Point]
    """Every stored value of every metric, in any order."""


class MlflowStoreContract:
    """Tests of a store; subclass it and define `connect` and `read`."""

    def connect(self, folder: RunFolder, projection: Projection) -> Target:
        """Return a new connection to the store that lies beside `folder`.

        It writes the runs of the sweep `projection.identity`.
        """
        raise NotImplementedError

    def read(self, folder: RunFolder, identity: str) -> Sequence[StoredRun]:
        """Return every run that the store has of this sweep, duplicates included."""
        raise NotImplementedError

    @pytest.fixture
    def folder(self, tmp_path: Path) -> RunFolder:
        """Return a run's folder; each test has a store of its own beside it."""
        root = tmp_path / "runs" / "simulated"
        root.mkdir(parents=True)
        return RunFolder(root)

    def test_a_whole_run_is_stored(self, folder: RunFolder) -> None:
        """Names, status, end, parameters, tags and metrics of the sweep and its trial."""
        self._write(folder, simulate())
        self._compare(folder, simulate())

    def test_changes_add_up(self, folder: RunFolder) -> None:
        """A run that is written event by event equals one that is written at once."""
        growing, store = Projection(), None
        for event in events():
            growing.apply(event)
            store = store or self.connect(folder, growing)
            for change in growing.take():
                store.write(change)
        assert store is not None
        growing.close()
        for change in growing.take():
            store.write(change)
        self._compare(folder, simulate())

    def test_the_outcome_says_what_happened(self, folder: RunFolder) -> None:
        """Created, then updated, then the same for a run that has ended."""
        partial = simulate(epochs=1, status=None)
        assert set(self._write(folder, partial).values()) == {"created"}
        assert set(self._write(folder, simulate()).values()) == {"updated"}
        assert set(self._write(folder, simulate()).values()) == {"same"}

    def test_a_repeat_adds_nothing(self, folder: RunFolder) -> None:
        """After a failure the mirror connects again and repeats everything."""
        for _ in range(3):
            self._write(folder, simulate(epochs=2, status=None))
        for _ in range(3):
            self._write(folder, simulate())
        self._compare(folder, simulate())

    def test_a_parameter_keeps_its_first_value(self, folder: RunFolder) -> None:
        """MLflow refuses to change one; new parameters are added."""
        projection = simulate(epochs=1, status=None)
        store = self.connect(folder, projection)
        for params in ({"width": "8"}, {"width": "16", "depth": "2"}):
            store.write(RunChange(key=TRIAL, name=TRIAL, start_ms=0, params=params))
        (run,) = self.read(folder, projection.identity)
        assert dict(run.params) == {"width": "8", "depth": "2"}

    def test_a_tag_takes_its_last_value(self, folder: RunFolder) -> None:
        """Other tags stay."""
        projection = simulate(epochs=1, status=None)
        store = self.connect(folder, projection)
        for tags in ({"a": "1", "b": "1"}, {"b": "2"}):
            store.write(RunChange(key=TRIAL, name=TRIAL, start_ms=0, tags=tags))
        (run,) = self.read(folder, projection.identity)
        assert {"a": "1", "b": "2"}.items() <= run.tags.items()

    def test_an_ended_run_can_be_reopened_and_ended_again(self, folder: RunFolder) -> None:
        """A resumed sweep continues a trial that was killed with it."""
        killed, expected = (simulate(epochs=1, status=None) for _ in range(2))
        for projection in (killed, expected):
            projection.close()
        self._write(folder, killed)
        self._compare(folder, expected)
        self._write(folder, simulate(epochs=2, status=None))
        statuses = {run.key: run.status for run in self.read(folder, killed.identity)}
        assert statuses == {SWEEP: "RUNNING", TRIAL: "RUNNING"}
        self._write(folder, simulate())
        self._compare(folder, simulate())

    def test_a_failed_run_is_marked(self, folder: RunFolder) -> None:
        """The sweep itself has finished."""
        self._write(folder, simulate(status="failed"))
        self._compare(folder, simulate(status="failed"))

    def test_a_long_change_is_stored_whole(self, folder: RunFolder) -> None:
        """MLflow takes 100 parameters and 1,000 items per call."""
        projection = simulate(epochs=1, status=None)
        change = RunChange(
            key=TRIAL,
            name=TRIAL,
            start_ms=0,
            params={f"p{i}": str(i) for i in range(250)},
            tags={f"tag{i}": str(i) for i in range(50)},
            points=[Point("loss", float(i), i, i) for i in range(2_500)],
        )
        expected = deepcopy(change)
        self.connect(folder, projection).write(change)
        (run,) = self.read(folder, projection.identity)
        assert dict(run.params) == expected.params
        assert expected.tags.items() <= run.tags.items()
        assert sorted(run.points) == sorted(expected.points)

    def test_sweeps_of_one_name_are_kept_apart(self, folder: RunFolder) -> None:
        """Their trials have the same names too."""
        self._write(folder, simulate())
        self._write(folder, simulate(started=9_000.0, epochs=2))
        self._compare(folder, simulate())
        self._compare(folder, simulate(started=9_000.0, epochs=2))

    def _write(self, folder: RunFolder, projection: Projection) -> dict[str, Outcome]:
        """Write what is new in a projection over a new connection; return the outcomes by key."""
        store = self.connect(folder, projection)
        return {change.key: store.write(change) for change in projection.take()}

    def _compare(self, folder: RunFolder, projection: Projection) -> None:
        """Check that the store has exactly the runs of a projection."""
        expected = {change.key: change for change in projection.take()}
        stored = self.read(folder, projection.identity)
        assert sorted(run.key for run in stored) == sorted(expected)
        for run in stored:
            change = expected[run.key]
            assert (run.name, run.status, run.end_ms) == (change.name, change.status, change.end_ms)
            assert dict(run.params) == change.params
            assert change.tags.items() <= run.tags.items()
            assert sorted(run.points) == sorted(change.points)


def events(
    *, started: float = 1_000.0, epochs: int = 3, status: Status | None = "completed"
) -> Iterable[Event]:
    """Yield the events of a sweep with one trial, which is still running if `status` is None."""
    yield RunStarted(run="simulated", spec={"name": "simulated", "trials": 1}, time=started)
    yield TrialStarted(
        trial=TRIAL, number=0, kind="search", recipe={"width": 8}, seed=7, attempt=1,
        time=started + 1,
    )  # fmt: skip
    for step in range(1, epochs + 1):
        yield EpochEnded(
            trial=TRIAL, step=step, epoch=step, rung=step if step == 3 else None,
            val_nll=1 / step, val_accuracy=0.5, seconds=0.25, time=started + 1 + step,
        )  # fmt: skip
    if status is not None:
        yield TrialEnded(trial=TRIAL, kind="search", status=status, time=started + 2 + epochs)


def simulate(
    *, started: float = 1_000.0, epochs: int = 3, status: Status | None = "completed"
) -> Projection:
    """Return the MLflow runs of `events`; the sweep has ended too unless its trial is running."""
    projection = Projection()
    for event in events(started=started, epochs=epochs, status=status):
        projection.apply(event)
    if status is not None:
        projection.close()
    return projection
