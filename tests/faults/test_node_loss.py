"""A cluster loses a node: its trials resume elsewhere, and the cluster keeps running."""

import threading
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from journal.events import EpochEnded, TrialRetried
from journal.journal import read_events
from search.tune.session import ray_session
from tests.drive_sweep import spec_of, sweep
from tests.events import of_type

ROOT = Path(__file__).parent.parent.parent
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_trials_of_a_lost_node_resume_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cluster itself installs the code on every node.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    journal, over = tmp_path / "journal.jsonl", threading.Event()

    def lose_the_node() -> None:
        while not over.wait(0.1):
            told = read_events(journal) if journal.exists() else []
            if len({event.trial for event in of_type(told, EpochEnded)}) == 2:
                break
        cluster.remove_node(other, allow_graceful=False)

    # A private session's leftovers in this process must not affect the cluster.
    with ray_session(cpus=1, folder=tmp_path):
        assert ray.is_initialized()
    cluster: Any = Cluster(initialize_head=True, head_node_args=NODE)
    other = cluster.add_node(**NODE)
    thread = threading.Thread(target=lose_the_node)
    thread.start()
    try:
        with ray_session(address=cluster.address, folder=tmp_path):
            spec = spec_of(trials=4, concurrent=2, milliseconds=400, rungs=[6, 9])
            outcome = sweep(tmp_path, spec)
        assert not ray.is_initialized()
        assert len(cluster.list_all_nodes()) == 1
    finally:
        over.set()
        thread.join()
        cluster.shutdown()
    assert (outcome.reason, outcome.failed, outcome.unfinished) == ("finished", 0, 0)
    events = read_events(journal)
    retried = of_type(events, TrialRetried)
    assert len(retried) == 1
    epochs = [(e.trial, e.step) for e in of_type(events, EpochEnded)]
    assert len(set(epochs)) == len(epochs)
