"""Ways to order a pool's members: distinct, reproducible, and what their definitions say."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.selection.diversity import disagreement
from ensemble.selection.mixture import View
from ensemble.selection.orders import WAYS, Likeness, Way, order_members
from ensemble.selection.pool import Pool
from tests.pools import synthetic_pool


def order(way: Way, pool: Pool, *, most: int = 3, tied_errors: float = 1.0) -> tuple[int, ...]:
    view = View.of(pool, np.arange(len(pool.labels)))
    return order_members(
        way, view, Likeness(pool), eligible=range(len(pool.names)), most=most,
        tied_errors=tied_errors, seed=0,
    )  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@given(seed=st.integers(0, 1000), most=st.integers(1, 8))
def test_orders_are_distinct_bounded_and_reproducible(way: Way, seed: int, most: int) -> None:
    pool = synthetic_pool(seed, examples=60, seeds=2)
    members = order(way, pool, most=most)
    assert members == order(way, pool, most=most)
    assert len(members) == len(set(members)) <= most
    assert len(members) == min(most, 2 if way == "seeds" else 6) or way in ("greedy", "bagged")
    if way == "seeds":
        assert members == tuple(range(4, 4 + len(members)))


@pytest.mark.parametrize("way", WAYS)
def test_near_duplicates_are_taken_once(way: Way) -> None:
    pool = synthetic_pool(0, skills=(2.0, 2.0, 1.0), examples=60)
    doubled = replace(
        pool, names=tuple("abcdef"), kinds=("seed",) * 6, seconds=np.ones(6),
        log_probs=pool.stack([0, 1, 2, 0, 1, 2]),
    )  # fmt: skip
    members = order(way, doubled, most=6)
    assert len({member % 3 for member in members}) == len(members)


def test_top_takes_the_best_singles() -> None:
    pool = synthetic_pool(1)
    losses = -np.log(View.of(pool, np.arange(120)).prob_true("calibrated")).mean(axis=0)
    assert order("top", pool, most=4) == tuple(np.argsort(losses)[:4].tolist())


@given(seed=st.integers(0, 1000), slack=st.floats(0, 3))
def test_diverse_equals_a_loop_over_its_definition(seed: int, slack: float) -> None:
    pool = synthetic_pool(seed)
    losses = -np.log(View.of(pool, np.arange(120)).prob_true("calibrated"))
    differ = disagreement(pool.stack().argmax(axis=2))
    left = sorted(range(6), key=lambda m: losses[:, m].mean())
    taken = [left.pop(0)]
    while left and len(taken) < 4:
        excess = [losses[:, m] - losses[:, left[0]] for m in left]
        tied = [
            m for m, e in zip(left, excess, strict=True)
            if e.mean() <= slack * e.std(ddof=1) / np.sqrt(120)
        ]  # fmt: skip
        chosen = max(tied, key=lambda m: sum(differ[m, t] for t in taken))
        taken.append(chosen)
        left.remove(chosen)
    assert order("diverse", pool, most=4, tied_errors=slack) == tuple(taken)


def test_without_ties_diverse_equals_top() -> None:
    pool = synthetic_pool(5)
    assert order("diverse", pool, tied_errors=0.0) == order("top", pool)
