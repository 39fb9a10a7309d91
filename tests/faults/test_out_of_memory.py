"""Trials run out of memory on a cluster of two nodes and are retried alone on one of them."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from search.tune.cluster import cluster_capacity
from search.tune.session import ray_session
from tests.drive_sweep import spec_of, sweep
from tests.fake_training import OUT_OF_MEMORY, resources_of
from trainables.records import RunFolder, read_record
from trainables.trial import requested

ROOT = Path(__file__).parent.parent.parent
CORES = 2
NODE = {"num_cpus": CORES, "object_store_memory": 100_000_000}


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("QUORUM_FAKE_MARKS", str(tmp_path))
    with ray_session(cpus=1, folder=tmp_path):  # see test_node_loss.py
        assert ray.is_initialized()
    cluster: Any = Cluster(initialize_head=True, head_node_args=NODE)
    cluster.add_node(**NODE)
    try:
        with ray_session(address=cluster.address, folder=tmp_path):
            yield
    finally:
        cluster.shutdown()
        del cluster
        gc.collect()  # Ray leaves a socket open, which a later test would be blamed for


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.timeout(600)
def test_trials_of_a_cluster_that_lack_memory_run_alone_and_avoid_no_node_for_good(
    two_nodes: None, tmp_path: Path
) -> None:
    first, second = cluster_capacity().nodes
    factory: Any = requested({"CPU": 1.0}, avoid=first.id)
    groups = [factory.to_placement_group() for _ in range(CORES)]
    ray.get([group.ready() for group in groups])
    for group in groups:
        assert set(placement_group_table(group)["bundles_to_node_id"].values()) == {second.id}
        ray.util.remove_placement_group(group)
    spec = spec_of(
        trials=12,
        concurrent=4,
        milliseconds=100,
        startup_trials=24,
        rungs=[3, 9],
        space={"width": {"type": "categorical", "choices": [OUT_OF_MEMORY, 16, 24]}},
    )
    outcome = sweep(tmp_path, spec)
    assert (outcome.reason, outcome.unfinished) == ("finished", 0)
    assert outcome.completed + outcome.pruned + outcome.failed == 12
    folder = RunFolder(tmp_path)
    greedy = [s for s in folder.starts() if s.recipe.architecture.width == OUT_OF_MEMORY]
    assert 0 < len(greedy) == outcome.failed < 12
    for start in greedy:
        assert resources_of(start.seed)[-1]["CPU"] == CORES
        record = read_record(folder.trial(start.trial) / "record.json")
        assert (record.status, record.cause) == ("failed", "recipe")
