"""Shared setup: quiet libraries, one thread, a bounded hypothesis profile, a finished run."""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Waiting threads must not occupy a core that parallel tests need.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import quorum
from common.locks import locked
from quorum import Outcome
from tests.tiny import tiny_spec

settings.register_profile(
    "quorum",
    deadline=None,
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("quorum")

SLOW = 100
"""Weight of a slow test; others weigh 1."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with the most slow tests first, so that processes finish at about the same time.

    The first file makes the finished run. The others that need it come after those that do not,
    because they would wait for it.
    """
    weights: Counter[str] = Counter()
    needing: dict[str, None] = {}
    for item in items:
        slow = item.get_closest_marker("slow") is not None
        weights[item.location[0]] += SLOW if slow else 1
        if "finished_run" in getattr(item, "fixturenames", ()):
            needing[item.location[0]] = None
    first = max(needing, key=lambda file: weights[file], default=None)
    items.sort(
        key=lambda item: (
            item.location[0] != first,
            weights[item.location[0]] < SLOW or item.location[0] in needing,
            -weights[item.location[0]],
        )
    )


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder shared by all test processes, for results that are made once."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def _own_cache(shared: Path) -> Iterator[None]:
    """Keep decoded images out of the home folder of the user who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUORUM_CACHE", str(shared / "cache"))
        yield


@pytest.fixture(scope="session")
def finished_run(shared: Path) -> Outcome:
    """Run the whole chain once, on little data. Tests share the run and must not change it."""
    runs = shared / "runs"
    with locked(shared / "finished_run.lock"):
        if not (runs / "tiny" / "report.pdf").is_file():  # written last
            return quorum.run(tiny_spec(), runs=runs, progress=False)
    return quorum.load_run("tiny", runs=runs)


@pytest.fixture(scope="session")
def empty_store(shared: Path) -> Path:
    """Return the path of a new MLflow database to copy; creating one takes three seconds."""
    from search.mlflow.client import load_mlflow

    path = shared / "empty.db"
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            making = path.with_suffix(".partial")
            load_mlflow().MlflowClient(tracking_uri=f"sqlite:///{making}").search_experiments()
            making.rename(path)
    return path
