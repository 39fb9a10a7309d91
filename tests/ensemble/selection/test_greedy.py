"""Greedy selection against a slow oracle, exhaustive search and its guarantees."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PoolError
from ensemble.selection.greedy import TOLERANCE, GreedySelection, select_bagged, select_greedy
from ensemble.selection.weights import TINY

Array = np.ndarray


def random_probs(rng: np.random.Generator, members: int, examples: int, classes: int) -> Array:
    """Draw probabilities [M, N, K] of members that favour class 0, the true class."""
    logits = rng.normal(size=(members, examples, classes)) * 1.5
    logits[:, :, 0] += rng.uniform(0.0, 2.0, size=(members, 1))
    exponentials = np.exp(logits)
    return np.asarray(exponentials / exponentials.sum(axis=2, keepdims=True))


def true_column(seed: int, members: int, examples: int = 30) -> Array:
    return random_probs(np.random.default_rng(seed), members, examples, 3)[:, :, 0].T


def nll(prob_true: Array) -> float:
    return float(-np.log(prob_true).mean())


def slow_greedy(probs: Array, labels: Array, rounds: int) -> list[float]:
    """Run Caruana's loop literally: over all of [M, N, K], with a new mean for every candidate."""
    chosen: list[int] = []
    trace = []
    for _ in range(rounds):
        scores = []
        for member in range(len(probs)):
            mean = np.mean([probs[m] for m in [*chosen, member]], axis=0)
            losses = [-np.log(row[label]) for row, label in zip(mean, labels, strict=True)]
            scores.append(float(np.mean(losses)))
        chosen.append(int(np.argmin(scores)))
        trace.append(min(scores))
    return trace


def float64_greedy(
    prob_true: Array, rng: np.random.Generator, *, cap: int, start: int, rounds: int
) -> list[int]:
    """Return the picks of a loop in float64 over all members in every round."""
    columns = np.maximum(prob_true, TINY).T.copy()
    singles = np.array([-np.log(column).mean() for column in columns])
    count = min(start, cap, rounds)
    order = np.lexsort((rng.random(len(columns)), singles))[:count].tolist() if count else []
    while len(order) < rounds:
        losses = np.full(len(columns), np.inf)
        for member in range(len(columns)):
            if member in order or len(set(order)) < cap:
                losses[member] = nll(
                    (columns[order].sum(axis=0) + columns[member]) / (len(order) + 1)
                )
        slack = TOLERANCE * max(1.0, abs(losses.min()))
        tied = np.flatnonzero(losses <= losses.min() + slack)
        tied = np.intersect1d(tied, order) if np.isin(tied, order).any() else tied
        order.append(int(tied[0] if len(tied) == 1 else rng.choice(tied)))
    return order


@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.01, 1.0, 5.0, 30.0]),
    kind=st.sampled_from(["plain", "floored", "zeros", "copies", "single precision"]),
    cap=st.sampled_from([3, 50]),
    start=st.integers(0, 3),
)
def test_the_picks_equal_those_of_a_loop_in_float64(
    seed: int, spread: float, kind: str, cap: int, start: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 300)), int(rng.integers(1, 50)))
    prob_true = 1.0 / (1.0 + np.exp(-spread * rng.normal(size=shape) - 1.0))
    if kind == "floored":
        prob_true = np.maximum(prob_true, 1e-7)
    elif kind == "zeros":
        prob_true[rng.random(shape) < 0.1] = 0.0
    elif kind == "copies":
        prob_true = prob_true[:, rng.integers(0, shape[1], shape[1])]
    elif kind == "single precision":
        prob_true = prob_true.astype(np.float32).astype(np.float64)
    picks = float64_greedy(prob_true, np.random.default_rng(1), cap=cap, start=start, rounds=15)
    selected = select_greedy(
        prob_true, rng=np.random.default_rng(1), cap=cap, sorted_start=start, rounds=15
    )
    assert list(selected.order) == picks[: len(selected.order)]
    if kind == "single precision":
        narrow = select_greedy(
            prob_true.astype(np.float32), rng=np.random.default_rng(1), cap=cap, sorted_start=start,
            rounds=15,
        )  # fmt: skip
        assert narrow == selected


@pytest.mark.parametrize("seed", range(4))
def test_the_trace_equals_the_slow_oracles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probs = random_probs(rng, members=5, examples=25, classes=4)
    labels = rng.integers(0, 4, 25)
    trace = slow_greedy(probs, labels, rounds=12)
    selected = select_greedy(probs[:, np.arange(25), labels].T, rng=rng, rounds=12)
    np.testing.assert_allclose(selected.trace, trace[: len(selected.trace)], atol=1e-12)
    assert selected.nll == pytest.approx(min(trace), abs=1e-12)


@given(seed=st.integers(0, 10_000), members=st.integers(1, 4), rounds=st.integers(1, 4))
def test_nll_lies_between_the_best_multiset_and_the_best_single(
    seed: int, members: int, rounds: int
) -> None:
    prob_true = true_column(seed, members)
    selected = select_greedy(prob_true, rng=np.random.default_rng(0), rounds=rounds)
    exhaustive = min(
        nll(prob_true[:, list(multiset)].mean(axis=1))
        for size in range(1, rounds + 1)
        for multiset in itertools.combinations_with_replacement(range(members), size)
    )
    singles = [nll(prob_true[:, [m]]) for m in range(members)]
    assert exhaustive - 1e-12 <= selected.nll <= min(singles) + 1e-12
    assert selected.order[0] == int(np.argmin(singles))
    if rounds == 1 or members == 1:
        assert selected.nll == pytest.approx(exhaustive)


def test_two_complementary_members_share_equally() -> None:
    # Each is right where the other is wrong, so the optimum is one half each.
    prob_true = np.array([[0.9, 0.1], [0.1, 0.9]])
    selected = select_greedy(prob_true, rng=np.random.default_rng(0), rounds=10)
    assert sorted(selected.order) == [0, 1]
    np.testing.assert_allclose(selected.weights(2), [0.5, 0.5])
    assert selected.nll == pytest.approx(np.log(2.0))


@given(seed=st.integers(0, 10_000), members=st.integers(1, 8), rounds=st.integers(1, 20))
def test_more_rounds_never_raise_the_nll_and_the_cap_holds(
    seed: int, members: int, rounds: int
) -> None:
    prob_true = true_column(seed, members)

    def run(rounds: int, cap: int | None, start: int = 0) -> GreedySelection:
        return select_greedy(
            prob_true, rng=np.random.default_rng(1), rounds=rounds, cap=cap, sorted_start=start
        )

    short, long = run(rounds, None), run(rounds + 5, None)
    assert long.nll <= short.nll + 1e-12
    # The shortest best prefix is kept, so only its last round has the lowest NLL.
    assert min(short.trace) == short.nll
    assert list(short.trace).index(short.nll) == len(short.trace) - 1
    for cap, start in ((1, 0), (2, 0), (3, 3), (2, 5)):
        capped = run(rounds, cap, start)
        assert len(capped.members) <= cap
        assert capped.nll == pytest.approx(nll(prob_true @ capped.weights(members)))


@given(seed=st.integers(0, 10_000), members=st.integers(2, 8))
def test_the_order_of_the_members_does_not_matter(seed: int, members: int) -> None:
    prob_true = true_column(seed, members)
    permutation = np.random.default_rng(seed + 1).permutation(members)
    plain = select_greedy(prob_true, rng=np.random.default_rng(2), cap=3)
    renamed = select_greedy(prob_true[:, permutation], rng=np.random.default_rng(2), cap=3)
    assert tuple(int(permutation[m]) for m in renamed.order) == plain.order
    np.testing.assert_allclose(renamed.trace, plain.trace)


def test_members_that_are_not_finite_never_win() -> None:
    prob_true = true_column(3, 4)
    prob_true[:, 1] = 1.0  # by far the best, except on one example
    prob_true[7, 1] = np.nan
    selected = select_greedy(prob_true, rng=np.random.default_rng(0), sorted_start=3)
    without = select_greedy(
        np.delete(prob_true, 1, axis=1), rng=np.random.default_rng(0), sorted_start=3
    )
    assert 1 not in selected.order
    assert selected.trace == without.trace
    with pytest.raises(PoolError, match="none of the 4 members has finite predictions"):
        select_greedy(np.full((5, 4), np.nan), rng=np.random.default_rng(0))


def test_ties_favour_current_members_then_the_generator() -> None:
    column = true_column(0, 1)
    copies = np.hstack([column, column, column])
    chosen = set()
    for seed in range(20):
        selected = select_greedy(copies, rng=np.random.default_rng(seed), rounds=6)
        assert len(selected.order) == 1
        chosen.add(selected.order[0])
    assert chosen == {0, 1, 2}
    # Two complementary members, each with a copy: no copy of a current member is added.
    pair = np.array([[0.9, 0.1, 0.9, 0.1], [0.1, 0.9, 0.1, 0.9], [0.8, 0.3, 0.8, 0.3]])
    for seed in range(20):
        selected = select_greedy(pair, rng=np.random.default_rng(seed), rounds=20)
        assert len({m % 2 for m in selected.members}) == len(selected.members)


def test_a_probability_of_zero_does_not_stop_the_selection() -> None:
    prob_true = np.array([[0.0, 0.5], [0.9, 0.5], [0.9, 0.5]])
    selected = select_greedy(prob_true, rng=np.random.default_rng(0))
    assert selected.order[0] == 1
    assert np.isfinite(selected.trace).all()


def test_sorted_start_takes_the_best_singles_first() -> None:
    prob_true = true_column(11, 6, examples=200)
    ranked = sorted(range(6), key=lambda m: nll(prob_true[:, m]))
    selected = select_greedy(prob_true, rng=np.random.default_rng(0), rounds=40, sorted_start=3)
    assert selected.order[:3] == tuple(ranked[:3])[: len(selected.order)]
    assert selected.trace[0] == pytest.approx(nll(prob_true[:, ranked[0]]))


@given(seed=st.integers(0, 10_000), members=st.integers(1, 10), bags=st.integers(1, 6))
def test_bagging_keeps_the_cap_and_reports_the_nll_of_its_order(
    seed: int, members: int, bags: int
) -> None:
    prob_true = true_column(seed, members)
    selected = select_bagged(
        prob_true, rng=np.random.default_rng(seed), bags=bags, cap=3, rounds=10
    )
    assert len(selected.members) <= 3
    assert len(selected.trace) == len(selected.order)
    assert selected.nll == pytest.approx(nll(prob_true @ selected.weights(members)))


def test_one_bag_of_everything_is_plain_greedy() -> None:
    prob_true = true_column(5, 6)
    plain = select_greedy(prob_true, rng=np.random.default_rng(0), cap=4)
    bagged = select_bagged(prob_true, rng=np.random.default_rng(0), bags=1, fraction=1.0, cap=4)
    assert bagged.order == plain.order
    np.testing.assert_allclose(bagged.trace, plain.trace)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"cap": 0}, "at least 1 member, got a cap of 0"),
        ({"sorted_start": -1}, "sorted_start must be 0 or more, got -1"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(PoolError, match=message):
        select_greedy(true_column(0, 2), rng=np.random.default_rng(0), **options)


def test_invalid_shapes_and_bags_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(PoolError, match=r"\[N, M\].*\(0, 3\)"):
        select_greedy(np.empty((0, 3)), rng=rng)
    with pytest.raises(PoolError, match=r"bags >= 1 and 0 < fraction <= 1, got 0, 0.5"):
        select_bagged(true_column(0, 2), rng=rng, bags=0)
