"""Hard, soft and weighted votes against loops over examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PoolError
from ensemble.selection.voting import (
    hard_vote,
    soft_vote,
    vote_error_rate,
    voting_log_probs,
    weighted_vote,
)

Array = np.ndarray


def random_log_probs(seed: int, members: int, examples: int, classes: int) -> Array:
    logits = np.random.default_rng(seed).normal(size=(members, examples, classes)) * 3
    log_probs = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    return np.asarray(log_probs, dtype=np.float32)


sizes = {"members": st.integers(1, 5), "examples": st.integers(1, 6), "classes": st.integers(2, 4)}


@given(seed=st.integers(0, 10_000), **sizes)
def test_weighted_vote_is_the_log_of_the_weighted_mean(
    seed: int, members: int, examples: int, classes: int
) -> None:
    log_probs = random_log_probs(seed, members, examples, classes)
    weights = np.random.default_rng(seed).dirichlet(np.ones(members))
    probs = np.exp(log_probs.astype(np.float64))
    slow = np.log(sum(w * rows for w, rows in zip(weights, probs, strict=True)))
    pooled = weighted_vote(log_probs, weights)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, slow, atol=1e-5)
    np.testing.assert_allclose(np.exp(pooled).sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(
        soft_vote(log_probs), weighted_vote(log_probs, np.full(members, 1 / members))
    )


@given(seed=st.integers(0, 10_000), **sizes)
def test_hard_vote_counts_votes(seed: int, members: int, examples: int, classes: int) -> None:
    log_probs = random_log_probs(seed, members, examples, classes)
    vote = hard_vote(log_probs)
    for i in range(examples):
        votes = [int(log_probs[m, i].argmax()) for m in range(members)]
        counts = [votes.count(k) for k in range(classes)]
        np.testing.assert_allclose(vote.shares[i], np.array(counts) / members)
        leading = [k for k in range(classes) if counts[k] == max(counts)]
        support = np.exp(log_probs[:, i].astype(float)).sum(axis=0)
        assert vote.labels[i] == max(leading, key=lambda k: support[k])


def test_hard_and_soft_voting_can_differ() -> None:
    # Two uncertain votes for class 0 outnumber one confident vote for class 1 but weigh less.
    probs = np.array([[[0.55, 0.45]], [[0.55, 0.45]], [[0.01, 0.99]]])
    assert hard_vote(np.log(probs)).labels.tolist() == [0]
    assert soft_vote(np.log(probs)).argmax(axis=1).tolist() == [1]


def test_a_tie_goes_to_the_class_of_higher_summed_probability() -> None:
    probs = np.array([[[0.6, 0.3, 0.1]], [[0.05, 0.9, 0.05]]])
    vote = hard_vote(np.log(probs))
    assert vote.shares.tolist() == [[0.5, 0.5, 0.0]]
    assert vote.labels.tolist() == [1]


def test_tiny_probabilities_survive_the_pooling() -> None:
    log_probs = np.array([[[0.0, -500.0]], [[0.0, -800.0]]], dtype=np.float32)
    pooled = soft_vote(log_probs)
    np.testing.assert_allclose(pooled, [[0.0, -500.0 - np.log(2.0)]], rtol=1e-6)


def test_a_probability_of_zero_in_every_member_stays_zero() -> None:
    with np.errstate(divide="ignore"):
        log_probs = np.log(np.array([[[1.0, 0.0]], [[1.0, 0.0]]]))
    np.testing.assert_array_equal(soft_vote(log_probs), [[0.0, -np.inf]])


def test_members_of_weight_zero_do_not_matter() -> None:
    log_probs = random_log_probs(0, 3, 4, 3)
    broken = log_probs.copy()
    broken[2] = np.nan
    np.testing.assert_array_equal(
        weighted_vote(broken, np.array([0.3, 0.7, 0.0])),
        weighted_vote(log_probs[:2], np.array([0.3, 0.7])),
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.6], r"sum to 1, got \[0.5, 0.6\]"),
        ([1.5, -0.5], "at least 0 and sum to 1"),
        ([np.nan, 1.0], "at least 0 and sum to 1"),
        ([1.0], r"expected 2 weights, got shape \(1,\)"),
    ],
)
def test_invalid_weights_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(PoolError, match=message):
        weighted_vote(random_log_probs(0, 2, 3, 2), np.array(weights))


def test_invalid_shapes_are_refused() -> None:
    with pytest.raises(PoolError, match=r"\[M, N, K\], got shape \(3, 2\)"):
        soft_vote(np.zeros((3, 2)))
    with pytest.raises(PoolError, match=r"\[M, N, K\], got shape \(0, 3, 2\)"):
        hard_vote(np.zeros((0, 3, 2)))


@given(seed=st.integers(0, 1000), members=st.integers(1, 5), classes=st.integers(2, 4))
def test_votes_as_log_probabilities_keep_the_winners(seed: int, members: int, classes: int) -> None:
    log_probs = random_log_probs(seed, members, 20, classes)
    weights = np.random.default_rng(seed).dirichlet(np.ones(members))
    votes = voting_log_probs(log_probs, weights, error_rate=0.1)
    assert list(votes) == ["hard_vote", "soft_vote", "weighted_vote"]
    for values in votes.values():
        assert np.isfinite(values).all()
        np.testing.assert_allclose(np.exp(values).sum(axis=1), 1.0, atol=1e-5)
    hard = hard_vote(log_probs)
    assert votes["hard_vote"].argmax(axis=1).tolist() == hard.labels.tolist()
    unanimous = hard.shares.max(axis=1) == 1.0
    np.testing.assert_allclose(np.exp(votes["hard_vote"][unanimous].max(axis=1)), 0.9, atol=1e-5)
    np.testing.assert_array_equal(votes["soft_vote"], soft_vote(log_probs))
    np.testing.assert_array_equal(votes["weighted_vote"], weighted_vote(log_probs, weights))


def test_members_without_weight_do_not_vote() -> None:
    log_probs, weights = random_log_probs(3, 3, 30, 3), np.array([0.6, 0.0, 0.4])
    votes = voting_log_probs(log_probs, weights, error_rate=0.2)
    alone = voting_log_probs(log_probs[[0, 2]], weights[[0, 2]], error_rate=0.2)
    for name, values in votes.items():
        np.testing.assert_array_equal(values, alone[name])


def test_the_smoothing_is_the_error_rate_of_unanimous_votes() -> None:
    right, wrong = [0.8, 0.2], [0.3, 0.7]
    probs = np.array([[right, right, wrong, right], [right, wrong, wrong, right]])
    labels = np.array([0, 0, 0, 1])  # unanimous on three examples, wrong on two of them
    rate = vote_error_rate(np.log(probs), np.array([0.5, 0.5]), labels)
    assert rate == pytest.approx(min((2 + 0.5) / (3 + 1), 0.999 * 0.5))
    never = vote_error_rate(np.log(probs[:, :1]), np.array([0.5, 0.5]), labels[:1])
    assert never == pytest.approx(0.25)


@pytest.mark.parametrize("error_rate", [0.0, 0.5, -0.1, float("nan")])
def test_a_smoothing_outside_its_range_is_refused(error_rate: float) -> None:
    with pytest.raises(PoolError, match=r"above 0 and below 0\.5"):
        voting_log_probs(random_log_probs(0, 2, 3, 2), np.array([0.5, 0.5]), error_rate=error_rate)
