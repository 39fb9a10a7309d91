"""Metrics agree with definitions written as loops, closed forms and scikit-learn."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from common.errors import PoolError
from common.statistics.metrics import (
    ECE_BINS,
    LOG_FLOOR,
    accuracy,
    apply_temperature,
    balanced_accuracy,
    brier,
    brier_per_example,
    correct,
    ece,
    ece_null,
    fit_temperature,
    log_probs_from_probs,
    macro_f1,
    nll,
    nll_per_example,
)

Problem = tuple[np.ndarray, np.ndarray]


def problem(seed: int, n: int = 200, k: int = 5, sharpness: float = 2.0) -> Problem:
    """Log-probabilities float32 [n, k] that are right more often than not, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.standard_normal((n, k)) + sharpness * (labels[:, None] == np.arange(k))
    return log_softmax(sharpness * logits, axis=1).astype(np.float32), labels


problems = st.builds(
    problem,
    seed=st.integers(0, 10_000),
    n=st.integers(1, 60),
    k=st.integers(2, 7),
    sharpness=st.floats(0.1, 8.0),
)


@given(problems)
def test_scores_agree_with_their_definitions(case: Problem) -> None:
    logp, labels = case
    predicted, classes = logp.argmax(axis=1), range(logp.shape[1])
    assert accuracy(logp, labels) == pytest.approx((predicted == labels).mean())
    recalls = [(predicted[labels == k] == k).mean() for k in set(labels)]
    assert balanced_accuracy(logp, labels) == pytest.approx(np.mean(recalls))
    f1 = [
        2
        * ((predicted == k) & (labels == k)).sum()
        / ((predicted == k).sum() + (labels == k).sum())
        for k in {*labels, *predicted}
    ]
    assert macro_f1(logp, labels) == pytest.approx(np.mean(f1))
    probs = np.exp(logp.astype(np.float64))
    probs /= probs.sum(axis=1, keepdims=True)
    if logp[np.arange(len(labels)), labels].min() > LOG_FLOOR:
        assert nll(logp, labels) == pytest.approx(log_loss(labels, probs, labels=classes), abs=1e-6)
    onehot = np.eye(logp.shape[1])[labels]
    assert brier(logp, labels) == pytest.approx(((probs - onehot) ** 2).sum() / len(labels))


def test_a_class_without_labels_does_not_count() -> None:
    logp = np.log(np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]], np.float32))
    labels = np.array([0, 1, 1])
    assert balanced_accuracy(logp, labels) == pytest.approx((1 + 1 / 2) / 2)
    assert macro_f1(logp, labels) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_a_predicted_class_without_labels_costs_f1_but_not_balanced_accuracy() -> None:
    logp = np.log(np.array([[0.8, 0.2], [0.1, 0.9]], np.float32))
    labels = np.array([0, 0])
    assert balanced_accuracy(logp, labels) == 0.5
    assert macro_f1(logp, labels) == pytest.approx((2 / 3 + 0) / 2)


def test_perfect_predictions_have_perfect_scores() -> None:
    labels = np.array([0, 1, 2])
    with np.errstate(divide="ignore"):
        logp = np.log(np.eye(3, dtype=np.float32))
    assert accuracy(logp, labels) == balanced_accuracy(logp, labels) == macro_f1(logp, labels) == 1
    assert nll(logp, labels) == brier(logp, labels) == ece(logp, labels) == 0
    assert ece_null(logp, rng=np.random.default_rng(0)) == 0
    # With two classes apart by a margin a and ε = 1/(N + 2), T = a / log((1 − ε)/ε).
    sure = np.log(np.array([[0.9, 0.1]] * 8, np.float32))
    assert fit_temperature(sure, np.zeros(8, int)) == pytest.approx(1.0, rel=1e-5)


def test_log_probability_of_minus_infinity_costs_the_floor() -> None:
    with np.errstate(divide="ignore"):
        logp = np.log(np.array([[1.0, 0.0]], np.float32))
    label = np.array([1])
    assert nll(logp, label) == -LOG_FLOOR == pytest.approx(16.118, abs=1e-3)
    assert brier(logp, label) == 2.0
    assert ece(logp, label) == 1.0
    assert fit_temperature(logp, label) == 20.0
    assert np.isfinite(apply_temperature(logp, 2.0)).all()


def test_ties_predict_the_first_class() -> None:
    logp = np.log(np.full((2, 4), 0.25, np.float32))
    assert correct(logp, np.array([0, 3])).tolist() == [True, False]


def ece_by_loops(logp: np.ndarray, labels: np.ndarray) -> float:
    """Compute ECE one example at a time; `np.array_split` would cut other bins than ours."""
    confidence = np.exp(logp.max(axis=1).astype(np.float64))
    hit = logp.argmax(axis=1) == labels
    shared = [hit[confidence == c].mean() for c in confidence]
    order = sorted(range(len(labels)), key=lambda i: confidence[i])
    edges = sorted({b * len(labels) // ECE_BINS for b in range(ECE_BINS)} | {len(labels)})
    error = 0.0
    for low, high in itertools.pairwise(edges):
        members = order[low:high]
        error += abs(sum(confidence[i] - shared[i] for i in members))
    return error / len(labels)


@given(problems, st.sampled_from([None, 1, 2]), st.randoms(use_true_random=False))
def test_ece_equals_its_definition_in_any_order(
    case: Problem, decimals: int | None, random: object
) -> None:
    logp, labels = case
    if decimals is not None:  # many equal confidences
        logp = np.round(logp, decimals)
    assert ece(logp, labels) == pytest.approx(ece_by_loops(logp, labels), abs=1e-12)
    order = np.random.default_rng(len(labels)).permutation(len(labels))
    assert ece(logp[order], labels[order]) == pytest.approx(ece(logp, labels), abs=1e-12)
    assert 0 <= ece(logp, labels) <= max(1.0, float(np.exp(logp.max())))


def test_ece_bins_have_equal_mass() -> None:
    """Each bin has two of 30 examples with confidence 0.9, one of them right."""
    confidence = 0.9 - np.arange(30) * 1e-5
    logp = np.log(np.stack([confidence, 1 - confidence], axis=1)).astype(np.float32)
    labels = np.tile([0, 1], 15)
    assert ece(logp, labels) == pytest.approx(confidence.mean() - 0.5, abs=1e-6)


def test_ece_of_equal_confidences_is_confidence_minus_accuracy() -> None:
    logp = np.log(np.tile([[0.7, 0.3]], (40, 1))).astype(np.float32)
    labels = np.array([0] * 20 + [1] * 20)
    assert ece(logp, labels) == pytest.approx(0.2, abs=1e-6)


def test_null_ece_of_one_example_a_bin() -> None:
    """A single example with confidence c errs by 2c(1 − c) on average.

    False alarm: 6e-5 (4 standard errors of 4,000 draws).
    """
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1.0, ECE_BINS)
    logp = np.log(np.stack([confidence, 1 - confidence], axis=1))
    c = np.exp(logp.max(axis=1))
    variance = (c * (1 - c) * (1 - 2 * c) ** 2).sum() / ECE_BINS**2
    draws = 4000
    estimate = ece_null(logp, rng=rng, draws=draws)
    assert abs(estimate - (2 * c * (1 - c)).mean()) < 4 * np.sqrt(variance / draws)


def test_null_ece_equals_ece_of_labels_drawn_from_the_predictions() -> None:
    """Compare with `ece` on drawn labels. False alarm: 6e-5 (4 standard errors)."""
    rng = np.random.default_rng(2)
    logp, _ = problem(3, n=100, k=4)
    probs = np.exp(logp.astype(np.float64))
    slow = [
        ece(logp, (rng.random((100, 1)) > np.cumsum(probs / probs.sum(1, keepdims=True), 1)).sum(1))
        for _ in range(400)
    ]
    fast = ece_null(logp, rng=rng, draws=2000)
    error = np.std(slow) * np.sqrt(1 / 400 + 1 / 2000)
    assert abs(fast - np.mean(slow)) < 4 * error


@given(problems)
def test_fitted_temperature_beats_a_grid_of_others(case: Problem) -> None:
    logp, labels = case

    def loss(temperature: float) -> float:
        scaled = log_softmax(np.maximum(logp, LOG_FLOOR).astype(np.float64) / temperature, axis=1)
        targets = np.full(scaled.shape, 1 / (len(labels) + 2) / (scaled.shape[1] - 1))
        targets[np.arange(len(labels)), labels] = 1 - 1 / (len(labels) + 2)
        return float(-(targets * scaled).sum(axis=1).mean())

    best = fit_temperature(logp, labels)
    assert 0.05 <= best <= 20
    assert loss(best) <= min(map(loss, np.geomspace(0.05, 20, 300))) + 1e-9


def test_uniform_predictions_keep_temperature_1() -> None:
    assert fit_temperature(np.log(np.full((3, 4), 0.25)), np.array([0, 1, 2])) == 1.0


@pytest.mark.parametrize("right", [0.6, 0.75, 0.9])
def test_temperature_of_a_constant_margin_has_a_closed_form(right: float) -> None:
    """Two classes and logits (a, 0) give T = a / log(q / (1 − q)), where q is the smoothed
    accuracy (1 − ε)p + ε(1 − p).
    """
    margin, n = 2.0, 20
    logp = log_softmax(np.tile([[margin, 0.0]], (n, 1)), axis=1).astype(np.float32)
    labels = (np.arange(n) >= right * n).astype(np.int64)
    smoothing = 1 / (n + 2)
    share = (1 - smoothing) * right + smoothing * (1 - right)
    expected = margin / np.log(share / (1 - share))
    assert fit_temperature(logp, labels) == pytest.approx(expected, rel=1e-5)


@given(problems, st.floats(0.5, 2.0))
def test_temperatures_compose(case: Problem, temperature: float) -> None:
    logp, _ = case
    logp = np.maximum(logp, -7.0)  # far from the floor
    logp = log_softmax(logp, axis=1)
    scaled = apply_temperature(logp, temperature)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(np.exp(scaled).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(apply_temperature(scaled, 1 / temperature), logp, atol=1e-4)


def test_nan_predictions_give_nan_scores_and_temperature_1() -> None:
    logp, labels = problem(0, n=20)
    logp[3] = np.nan
    assert np.isnan(nll(logp, labels))
    assert np.isnan(brier(logp, labels))
    assert np.isnan(ece(logp, labels))
    assert fit_temperature(logp, labels) == 1.0


@given(problems)
def test_per_example_scores_average_to_the_scores(case: Problem) -> None:
    logp, labels = case
    assert nll(logp, labels) == nll_per_example(logp, labels).mean()
    assert brier(logp, labels) == brier_per_example(logp, labels).mean()
    assert nll_per_example(logp, labels).dtype == np.float64


def test_probabilities_are_renormalized_then_floored() -> None:
    probs = np.array([[[0.5004, 0.5004], [1.0, 0.0]]], np.float32)
    logp = log_probs_from_probs(probs)
    assert logp.dtype == np.float32
    np.testing.assert_allclose(logp[0, 0], np.log(0.5), rtol=1e-6)
    assert logp[0, 1].tolist() == [0.0, np.float32(LOG_FLOOR)]


@pytest.mark.parametrize(
    "row", [[0.5, 0.5011], [1.2, -0.2], [np.nan, 0.5], [np.inf, 0.0], [0.0, 0.0]]
)
def test_values_that_are_not_probabilities_are_refused(row: list[float]) -> None:
    probs = np.array([[0.5, 0.5], row])
    with pytest.raises(PoolError, match=r"row \[1\] sums to .*softmax"):
        log_probs_from_probs(probs)


def test_wrong_shapes_and_labels_are_refused() -> None:
    logp, labels = problem(0, n=4, k=3)
    with pytest.raises(PoolError, match=r"got \[4, 3\] and \[3\]"):
        nll(logp, labels[:3])
    with pytest.raises(PoolError, match="N and K at least 1"):
        accuracy(logp[:0], labels[:0])
    with pytest.raises(PoolError, match=r"labels must lie in 0 … 2, got -1 … 2"):
        brier(logp, np.array([0, -1, 2, 1]))
    with pytest.raises(PoolError, match="must be positive, got 0"):
        apply_temperature(logp, 0.0)
