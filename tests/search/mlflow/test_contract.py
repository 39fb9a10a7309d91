"""MLflow's store and the one in memory pass the contract suite of stores."""

import shutil
from functools import cached_property
from pathlib import Path

import pytest

from quorum.testing.mlflow import MlflowStoreContract, StoredRun
from search.mlflow.client import load_mlflow
from search.mlflow.projection import Projection
from search.mlflow.runs import SWEEP, Point
from search.mlflow.store import Store
from search.mlflow.writing import Target
from tests.search.mlflow.mirrored import FakeStore
from trainables.records import RunFolder


class TestContractInMemory(MlflowStoreContract):
    @cached_property
    def store(self) -> FakeStore:
        return FakeStore()

    def connect(self, folder: RunFolder, projection: Projection) -> Target:
        return self.store.connect("", folder, projection)

    def read(self, folder: RunFolder, identity: str) -> list[StoredRun]:
        return self.store.sweeps[identity].stored()


@pytest.mark.slow
class TestContractOfMlflow(MlflowStoreContract):
    @pytest.fixture
    def folder(self, tmp_path: Path, empty_store: Path) -> RunFolder:
        root = tmp_path / "runs" / "simulated"
        root.mkdir(parents=True)
        shutil.copy(empty_store, root.parent / "mlflow.db")
        return RunFolder(root)

    def connect(self, folder: RunFolder, projection: Projection) -> Target:
        return Store(uri_of(folder), folder, projection)

    def read(self, folder: RunFolder, identity: str) -> list[StoredRun]:
        """Read with MLflow's client, as any other program would."""
        client = load_mlflow().MlflowClient(tracking_uri=uri_of(folder))
        experiments = [each.experiment_id for each in client.search_experiments()]
        return [
            StoredRun(
                key=run.data.tags.get("quorum.trial", SWEEP),
                name=run.info.run_name,
                status=run.info.status,
                end_ms=run.info.end_time,
                params=run.data.params,
                tags=run.data.tags,
                points=[
                    Point(point.key, point.value, point.timestamp, point.step)
                    for name in run.data.metrics
                    for point in client.get_metric_history(run.info.run_id, name)
                ],
            )
            for run in client.search_runs(experiments, f"tags.`quorum.id` = '{identity}'")
        ]


def uri_of(folder: RunFolder) -> str:
    return f"sqlite:///{folder.root.parent / 'mlflow.db'}"
