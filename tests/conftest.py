"""What every test shares: quiet libraries, one thread, a bounded hypothesis profile."""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where tests run side by side, threads that wait must not keep the others from their core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from common.locks import locked
from quorum import Outcome, pipeline
from search.mlflow.tracking import MlflowMirror
from search.timetable import planner
from tests.tiny import tiny_spec
from trainables.records import RunFolder

settings.register_profile(
    "quorum",
    deadline=None,
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("quorum")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is made once, by whichever of xdist's processes needs it first."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def _own_cache(shared: Path) -> Iterator[None]:
    """Decoded images are kept out of the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUORUM_CACHE", str(shared / "cache"))
        yield


@pytest.fixture(scope="session")
def finished_run(shared: Path) -> Outcome:
    """One tiny run of the whole chain, shared: tests read it and never write to it."""
    folder = RunFolder(shared / "runs" / "tiny")
    with locked(shared / "finished_run.lock"):
        if not folder.report.is_file():  # which is written last
            return pipeline.run(tiny_spec(), folder)
    return Outcome(folder=folder, tracking_uri=f"sqlite:///{shared}/runs/mlflow.db")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rehearsals of a step or two."""
    monkeypatch.setattr(planner, "MOST_SECONDS", 0.01)
    monkeypatch.setattr(planner, "USUAL_SECONDS", 0.01)


@pytest.fixture
def unmirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs have no view in MLflow: to make its database takes seconds each time."""
    monkeypatch.setattr(MlflowMirror, "handle", lambda self, event: None)


@pytest.fixture(scope="session")
def empty_store(shared: Path) -> Path:
    """MLflow's database, migrated, to be copied: making one takes three seconds."""
    from search.mlflow.store import load_mlflow

    path = shared / "empty.db"
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            making = path.with_suffix(".partial")
            load_mlflow().MlflowClient(tracking_uri=f"sqlite:///{making}").search_experiments()
            making.rename(path)
    return path
