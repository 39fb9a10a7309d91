"""Simplex weights against closed forms, a long EM and the duality certificate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from common.errors import PoolError
from ensemble.selection.weights import em_weights, gap, optimal_weights, simplex_weights

Array = np.ndarray


def objective(weights: Array, prob_true: Array) -> float:
    return float(-np.log(prob_true @ weights).mean())


def random_pool(seed: int, members: int, examples: int = 60) -> Array:
    rng = np.random.default_rng(seed)
    skill = rng.normal(size=members) * 0.5
    difficulty = rng.normal(size=(examples, 1))
    noise = rng.normal(size=(examples, members))
    return np.asarray(1.0 / (1.0 + np.exp(-(1.0 + skill + difficulty + noise))))


def em_oracle(prob_true: Array, iterations: int) -> Array:
    """Run expectation–maximization of mixture proportions, one example at a time."""
    weights = np.full(prob_true.shape[1], 1.0 / prob_true.shape[1])
    for _ in range(iterations):
        shares = np.array([weights * row / (weights @ row) for row in prob_true])
        weights = shares.mean(axis=0)
    return weights


@given(a=st.floats(0.55, 0.95), share=st.floats(0.05, 0.95))
def test_weights_of_two_members_equal_the_closed_form(a: float, share: float) -> None:
    # Member 0 gives a where member 1 gives 1 − a, and vice versa on the other examples. With
    # b = 2a − 1 and p the share of the first kind, f' = 0 at w = ½ + (2p − 1)/(2b).
    counts = round(share * 1000)
    prob_true = np.empty((1000, 2))
    prob_true[:counts], prob_true[counts:] = [a, 1 - a], [1 - a, a]
    expected = np.clip(0.5 + (2 * counts / 1000 - 1) / (2 * (2 * a - 1)), 0.0, 1.0)
    assert simplex_weights(prob_true)[0] == pytest.approx(expected, abs=2e-4)


@given(seed=st.integers(0, 10_000))
def test_weights_of_two_members_are_a_root_of_the_slope(seed: int) -> None:
    prob_true = random_pool(seed, 2)

    def slope(w: float) -> float:
        pooled = w * prob_true[:, 0] + (1 - w) * prob_true[:, 1]
        return float(-((prob_true[:, 0] - prob_true[:, 1]) / pooled).mean())

    if slope(0.0) >= 0.0:
        expected = 0.0
    elif slope(1.0) <= 0.0:
        expected = 1.0
    else:
        expected = float(brentq(slope, 0.0, 1.0, xtol=1e-14))
    assert simplex_weights(prob_true)[0] == pytest.approx(expected, abs=1e-3)


@given(seed=st.integers(0, 10_000), members=st.integers(1, 12))
def test_weights_are_on_the_simplex_and_certified_optimal(seed: int, members: int) -> None:
    prob_true = random_pool(seed, members)
    weights = simplex_weights(prob_true)
    assert (weights >= 0.0).all()
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert gap(weights, prob_true) <= 1e-6
    rng = np.random.default_rng(seed)
    for other in [*np.eye(members), *rng.dirichlet(np.ones(members), size=5)]:
        assert objective(weights, prob_true) <= objective(other, prob_true) + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_weights_agree_with_a_long_em(seed: int) -> None:
    prob_true = random_pool(seed, members=6, examples=40)
    oracle = em_oracle(prob_true, 1500)
    assert objective(simplex_weights(prob_true), prob_true) <= objective(oracle, prob_true) + 1e-9
    np.testing.assert_allclose(em_weights(prob_true, iterations=1500), oracle, atol=1e-9)


@given(seed=st.integers(0, 10_000), members=st.integers(2, 8))
def test_the_gap_bounds_the_distance_to_the_optimum(seed: int, members: int) -> None:
    prob_true = random_pool(seed, members)
    best = objective(em_weights(prob_true, iterations=4000), prob_true)
    rng = np.random.default_rng(seed)
    for weights in [*rng.dirichlet(np.ones(members), size=4), np.full(members, 1 / members)]:
        assert gap(weights, prob_true) >= objective(weights, prob_true) - best - 1e-12


def test_the_gap_equals_the_closed_form() -> None:
    prob_true = np.array([[0.8, 0.4], [0.8, 0.4]])
    assert gap(np.array([1.0, 0.0]), prob_true) == 0.0
    assert gap(np.array([0.0, 1.0]), prob_true) == pytest.approx(1.0)
    assert gap(np.array([0.5, 0.5]), prob_true) == pytest.approx(0.8 / 0.6 - 1.0)


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-200, 1.0))
def test_the_scale_of_an_example_does_not_matter(seed: int, scale: float) -> None:
    prob_true = random_pool(seed, 4)
    scaled = prob_true.copy()
    scaled[::2] *= scale
    weights = simplex_weights(prob_true)
    np.testing.assert_allclose(simplex_weights(scaled), weights, atol=1e-6)
    assert gap(weights, scaled) == pytest.approx(gap(weights, prob_true), abs=1e-9)


def test_weights_of_collinear_members_are_optimal() -> None:
    base = random_pool(0, 10, examples=400)
    best = objective(em_weights(base, iterations=5000), base)
    mixed = base @ np.random.default_rng(1).dirichlet(np.ones(10), size=10).T
    for pool in (np.hstack([base, base]), np.hstack([base, mixed]), np.hstack([base[:, :1]] * 30)):
        weights = simplex_weights(pool)
        assert gap(weights, pool) <= 1e-6
    assert (
        objective(simplex_weights(np.hstack([base, base])), np.hstack([base, base])) <= best + 1e-9
    )


def test_weights_of_two_hundred_members_are_optimal() -> None:
    pool = random_pool(4, 200, examples=500)
    weights = simplex_weights(pool)
    assert gap(weights, pool) <= 1e-6
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)


def test_a_probability_of_zero_lowers_a_members_weight() -> None:
    # Member 0 is better except on one example, which costs −log(1 − w)/50.
    prob_true = np.full((50, 2), [0.9, 0.3])
    prob_true[0] = [0.0, 0.3]
    weights = simplex_weights(prob_true)
    assert 0.9 < weights[0] < 1.0
    assert gap(weights, prob_true) <= 1e-6


@given(seed=st.integers(0, 10_000), members=st.integers(1, 30), used=st.integers(1, 3))
def test_optimal_weights_are_certified_from_any_start(seed: int, members: int, used: int) -> None:
    prob_true = random_pool(seed, members)
    start = np.zeros(members)
    start[np.random.default_rng(seed).integers(0, members, used)] = 1.0
    weights = optimal_weights(prob_true, start=start / start.sum())
    assert weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert gap(weights, prob_true) <= 1e-6
    oracle = simplex_weights(prob_true)
    assert objective(weights, prob_true) == pytest.approx(objective(oracle, prob_true), abs=2e-6)


def test_em_never_raises_the_nll_and_keeps_zero_weights() -> None:
    prob_true = random_pool(2, 5)
    values = [objective(em_weights(prob_true, iterations=n), prob_true) for n in range(1, 60)]
    assert (np.diff(values) <= 1e-15).all()
    assert em_weights(prob_true, start=np.array([0.5, 0.5, 0.0, 0.0, 0.0]))[2:].sum() == 0.0


@pytest.mark.parametrize(
    ("prob_true", "message"),
    [
        (np.full((3, 2), np.nan), "finite and at least 0"),
        (np.full((3, 2), -0.1), "finite and at least 0"),
        (np.full(3, 0.5), r"\[N, M\].*\(3,\)"),
        (np.empty((0, 2)), r"\[N, M\].*\(0, 2\)"),
    ],
)
def test_invalid_probabilities_are_refused(prob_true: Array, message: str) -> None:
    with pytest.raises(PoolError, match=message):
        simplex_weights(prob_true)
