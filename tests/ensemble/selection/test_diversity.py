"""Measures of diversity against loops, and their identities with the NLL."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.selection.diversity import (
    disagreement,
    double_fault,
    kohavi_wolpert,
    marginal_values,
    near_duplicates,
    pooling_gain,
    probability_distance,
)

Array = np.ndarray

seeds = st.integers(0, 10_000)


def votes(seed: int, members: int, examples: int = 20) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, (members, examples)), rng.integers(0, 3, examples)


def true_probs(seed: int, members: int, examples: int = 30) -> Array:
    return np.random.default_rng(seed).uniform(0.01, 1.0, (examples, members))


@given(seed=seeds, members=st.integers(1, 6))
def test_disagreement_and_double_fault_equal_loops_over_examples(seed: int, members: int) -> None:
    predicted, labels = votes(seed, members)
    differ, fault = disagreement(predicted), double_fault(predicted, labels)
    for a, b in itertools.product(range(members), repeat=2):
        pairs = list(zip(predicted[a], predicted[b], labels, strict=True))
        assert differ[a, b] == pytest.approx(np.mean([x != y for x, y, _ in pairs]))
        both = [x != label and y != label for x, y, label in pairs]
        assert fault[a, b] == pytest.approx(np.mean(both))


@given(seed=seeds, members=st.integers(2, 6))
def test_kohavi_wolpert_variance_equals_its_pairwise_form(seed: int, members: int) -> None:
    predicted, labels = votes(seed, members)
    right = (predicted == labels).astype(int)
    pairs = [np.mean(right[a] != right[b]) for a, b in itertools.combinations(range(members), 2)]
    expected = (members - 1) / (2 * members) * np.mean(pairs)
    assert kohavi_wolpert(predicted, labels) == pytest.approx(expected)


@given(seed=seeds, members=st.integers(1, 6))
def test_marginal_values_are_slopes_of_the_nll(seed: int, members: int) -> None:
    prob_true = true_probs(seed, members)
    weights = np.random.default_rng(seed).dirichlet(np.ones(members))
    values = marginal_values(prob_true, weights)
    assert weights @ values == pytest.approx(0.0, abs=1e-12)
    step = 1e-6
    for member in range(members):
        moved = (1 - step) * weights + step * np.eye(members)[member]
        change = np.log(prob_true @ moved).mean() - np.log(prob_true @ weights).mean()
        assert values[member] == pytest.approx(change / step, abs=1e-3)


def test_marginal_values_equal_the_closed_form() -> None:
    prob_true = np.array([[0.5, 1.0], [0.5, 0.25]])
    np.testing.assert_allclose(marginal_values(prob_true, np.array([1.0, 0.0])), [0.0, 0.25])


@given(seed=seeds, members=st.integers(1, 6))
def test_pooling_gain_is_the_members_mean_nll_minus_the_pools(seed: int, members: int) -> None:
    prob_true = true_probs(seed, members)
    weights = np.random.default_rng(seed).dirichlet(np.ones(members))
    singles = -np.log(prob_true).mean(axis=0)
    pool = -np.log(prob_true @ weights).mean()
    gain = pooling_gain(prob_true, weights)
    assert gain == pytest.approx(weights @ singles - pool)
    assert gain >= -1e-12
    alone = np.eye(members)[0]
    assert pooling_gain(prob_true, alone) == pytest.approx(0.0, abs=1e-12)


def log_probs(seed: int, members: int) -> Array:
    logits = np.random.default_rng(seed).normal(size=(members, 12, 3))
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=2, keepdims=True)))


@given(seed=seeds, members=st.integers(1, 5))
def test_distance_equals_a_loop_over_examples(seed: int, members: int) -> None:
    pool = log_probs(seed, members)
    distances = probability_distance(pool)
    for a, b in itertools.product(range(members), repeat=2):
        apart = [
            np.sum((np.exp(x) - np.exp(y)) ** 2) for x, y in zip(pool[a], pool[b], strict=True)
        ]
        assert distances[a, b] == pytest.approx(np.sqrt(np.mean(apart)), abs=1e-7)


def test_near_duplicates_are_found_and_others_are_not() -> None:
    pool = log_probs(0, 4)
    nudged = pool[1] + np.array([1e-3, 0.0, 0.0])
    nudged -= np.log(np.exp(nudged).sum(axis=1, keepdims=True))
    pairs = near_duplicates(np.concatenate([pool, pool[2:3], nudged[None]]))
    assert pairs == ((1, 5), (2, 4))
    assert near_duplicates(pool) == ()


def test_certain_members_of_different_classes_are_farthest_apart() -> None:
    with np.errstate(divide="ignore"):
        pool = np.log(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
    assert probability_distance(pool)[0, 1] == pytest.approx(np.sqrt(2.0))
