"""Costs of a pool's networks: measured once each, the promising ones first, as time allows."""

import itertools
from pathlib import Path

import pytest

from ensemble.evaluation.pool_costs import measure_pool_costs
from ensemble.selection.front import TrialCost, read_costs
from quorum import Outcome
from search.space.sweep_files import spec_of_run
from trainables.data.dataset import load_dataset
from trainables.data.splits import make_splits
from trainables.records import RunFolder

pytestmark = pytest.mark.slow


def measured(run: Outcome, to: Path, *, readings: float) -> dict[str, TrialCost]:
    """Return the costs that are known when the clock advances a second with every reading."""
    folder = RunFolder(to)
    folder.root.mkdir()
    (folder.root / "trials").symlink_to(run.folder.root.absolute() / "trials")
    images = load_dataset(spec_of_run(run.folder).dataset)
    clock = itertools.count()
    measure_pool_costs(
        folder,
        names=[record.trial for record in run.folder.records() if record.status == "completed"],
        images=images,
        splits=make_splits(images, spec_of_run(run.folder).splits),
        progress=lambda fraction, detail: None,
        seconds=readings,
        clock=lambda: float(next(clock)),
    )
    return read_costs(folder.costs)


def test_networks_are_measured_while_there_is_time(finished_run: Outcome, tmp_path: Path) -> None:
    whole = measured(finished_run, tmp_path / "whole", readings=1000)
    assert all(cost.bytes and cost.latency_ms and cost.gflops for cost in whole.values())
    params = {record.trial: record.params for record in finished_run.folder.records()}
    assert {name: cost.params for name, cost in whole.items()} == {n: params[n] for n in whole}
    none = measured(finished_run, tmp_path / "none", readings=0)
    assert none.keys() == whole.keys()
    assert all(cost.bytes is None and cost.latency_ms is None for cost in none.values())
    assert {n: cost.gflops for n, cost in none.items()} == {n: c.gflops for n, c in whole.items()}


def test_the_selection_of_a_run_has_a_front(finished_run: Outcome) -> None:
    front = finished_run.selection.front
    assert any(point.efficient for point in front)
    assert (finished_run.folder.figures / "front.png").is_file()
