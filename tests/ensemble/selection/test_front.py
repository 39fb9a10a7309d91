"""The Pareto front: against a slow oracle, with unknown costs, budgets and ensembles."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.statistics.metrics import apply_temperature, fit_temperature, nll
from ensemble.selection.candidates import Request
from ensemble.selection.decision import select_ensemble
from ensemble.selection.front import (
    MOST_POINTS,
    PoolCosts,
    TrialCost,
    mark_efficient,
    read_costs,
    with_front,
    write_costs,
)
from ensemble.selection.selection import FrontPoint
from tests.pools import synthetic_pool

POOL = synthetic_pool()


def point(score: float, size: int | None, latency: float | None) -> FrontPoint:
    return FrontPoint(
        name="t0", kind="trial", nll=score, params=1, gflops=1.0, bytes=size, latency_ms=latency
    )


def beaten(own: FrontPoint, points: list[FrontPoint]) -> bool:
    """Return whether another point is nowhere worse and somewhere better."""
    for other in points:
        if other.bytes is None or other.latency_ms is None:
            continue
        assert own.bytes is not None
        assert own.latency_ms is not None
        a = (other.nll, other.bytes, other.latency_ms)
        b = (own.nll, own.bytes, own.latency_ms)
        if all(x <= y for x, y in zip(a, b, strict=True)) and any(
            x < y for x, y in zip(a, b, strict=True)
        ):
            return True
    return False


few = st.integers(1, 4)
points = st.builds(point, few.map(float), few | st.none(), few.map(float) | st.none())


@given(st.lists(points, max_size=12))
def test_the_front_is_what_no_other_point_beats(found: list[FrontPoint]) -> None:
    marked = mark_efficient(found)
    assert [each.nll for each in marked] == sorted(each.nll for each in found)
    for each in marked:
        if each.bytes is None or each.latency_ms is None:
            assert each.efficient is None
        else:
            assert each.efficient is not beaten(each, found)


def test_a_selection_lists_trials_and_ensembles_with_their_costs() -> None:
    selection = select_ensemble(POOL, Request(members=2))
    costs = {
        name: TrialCost(params=10 + i, gflops=0.1, bytes=100 + i, latency_ms=1.0 + i)
        for i, name in enumerate(POOL.names)
    }
    result = with_front(selection, POOL, costs, {"latency_ms": 1.5, "bytes": None})
    found = {each.name: each for each in result.front}
    assert set(POOL.names) <= set(found)
    for index, name in enumerate(POOL.names):
        log_probs = POOL.log_probs[index]
        own = apply_temperature(log_probs, fit_temperature(log_probs, POOL.labels))
        assert np.isclose(found[name].nll, nll(own, POOL.labels))
        assert found[name].over == (() if index == 0 else ("latency_ms",))
    pair = found["uniform_top_k"]
    names = [member.name for member in selection.uniform_top_k.members]
    assert len(names) > 1
    assert pair.bytes == sum(costs[name].bytes or 0 for name in names)
    assert pair.nll == selection.uniform_top_k.nll
    assert result.members == selection.members


def test_without_costs_there_is_no_front_and_unknown_ones_are_not_compared() -> None:
    selection = select_ensemble(POOL, Request(members=2))
    assert with_front(selection, POOL, {}, {}) == selection
    exact = {name: TrialCost(params=1, gflops=0.1) for name in POOL.names}
    result = with_front(selection, POOL, exact, {"params": 0})
    assert {each.efficient for each in result.front} == {None}
    assert all(each.over == ("params",) for each in result.front if each.kind == "trial")
    assert len([each for each in result.front if each.kind == "trial"]) <= MOST_POINTS


def test_costs_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    assert read_costs(path) == {}
    costs = {"t0001": TrialCost(params=3, gflops=0.5, bytes=9, latency_ms=0.1), "t2": TrialCost()}
    write_costs(path, PoolCosts(machine={"cores": 2}, trials=costs))
    assert read_costs(path) == costs
