"""What every test shares: quiet libraries, one thread, a bounded hypothesis profile."""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

import pipeline
from tests.tiny import tiny_spec

settings.register_profile(
    "quorum",
    deadline=None,
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("quorum")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> pipeline.Outcome:
    """One tiny run of the whole chain, shared: tests read it and never write to it."""
    return pipeline.run(tiny_spec(), tmp_path_factory.mktemp("runs") / "tiny")
