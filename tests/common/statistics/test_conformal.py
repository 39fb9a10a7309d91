"""Prediction sets: the threshold's rank, the sets, and the rate at which they hold the truth."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.statistics.conformal import ConformalSet, fit_conformal, prediction_set

Array = np.ndarray[Any, Any]


def drawn(rng: np.random.Generator, examples: int, classes: int = 5) -> tuple[Array, Array]:
    """Return probabilities of an overconfident classifier, and labels."""
    logits = 2 * rng.normal(size=(examples, classes))
    true = np.exp(logits / 2)
    true /= true.sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1) < rng.random((examples, 1))).sum(axis=1).clip(0, classes - 1)
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels


@given(examples=st.integers(1, 300), percent=st.integers(50, 99), seed=st.integers(0, 50))
def test_the_threshold_is_that_of_the_definition(examples: int, percent: int, seed: int) -> None:
    """The ⌈(n + 1)·level⌉-th smallest of the scores 1 − p, and no threshold beyond the n-th."""
    probabilities, labels = drawn(np.random.default_rng(seed), examples)
    fitted = fit_conformal(probabilities, labels, level=percent / 100)
    rank = -(-(examples + 1) * Fraction(percent, 100) // 1)
    scores = sorted(1 - probabilities[i, label] for i, label in enumerate(labels))
    expected = 1 - scores[int(rank) - 1] if rank <= examples else 0.0
    assert fitted.threshold == pytest.approx(expected, abs=1e-12)
    assert (fitted.level, fitted.images) == (percent / 100, examples)


def test_a_set_holds_the_classes_above_the_threshold_and_the_first() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.4, 0.35, 0.25], [0.2, 0.2, 0.6]])
    assert prediction_set(probabilities, 0.3).tolist() == [
        [True, True, False],
        [True, True, False],
        [False, False, True],
    ]
    assert prediction_set(probabilities, 0.9).sum(axis=1).tolist() == [1, 1, 1]
    assert prediction_set(probabilities[1], 0.25).tolist() == [True, True, True]
    assert prediction_set(probabilities, 0.0).all()


@given(seed=st.integers(0, 99), low=st.floats(0, 1), more=st.floats(0, 1))
def test_a_lower_threshold_only_adds_classes(seed: int, low: float, more: float) -> None:
    probabilities, _ = drawn(np.random.default_rng(seed), 20)
    assert (prediction_set(probabilities, low) >= prediction_set(probabilities, low + more)).all()


@pytest.mark.parametrize(("examples", "level"), [(30, 0.9), (99, 0.9), (200, 0.95), (400, 0.8)])
def test_sets_hold_the_true_class_as_often_as_asked(examples: int, level: float) -> None:
    """Over 400 calibrations the mean coverage lies between level and level + 1/(n + 1)."""
    rng = np.random.default_rng(1)
    coverages = []
    for _ in range(400):
        fitted = fit_conformal(*drawn(rng, examples), level=level)
        probabilities, labels = drawn(rng, 500)
        sets = probabilities >= fitted.threshold
        coverages.append(sets[np.arange(500), labels].mean())
        kept = prediction_set(probabilities, fitted.threshold)
        assert kept[np.arange(500), labels].mean() >= coverages[-1]
    error = np.std(coverages) / np.sqrt(len(coverages))
    assert level - 3 * error <= np.mean(coverages) <= level + 1 / (examples + 1) + 3 * error


def test_odd_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="expected probabilities"):
        fit_conformal(np.ones((3, 2)) / 2, np.zeros(2, int), level=0.9)
    with pytest.raises(ValueError, match="must lie in"):
        ConformalSet(threshold=1.5, level=0.9, images=3)
