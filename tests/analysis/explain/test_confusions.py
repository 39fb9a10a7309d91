"""Confused pairs: those with the most errors, in a fixed order; chance alone makes none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.explain.confusions import FEWEST_ERRORS, confusion_matrix, most_confused
from common.statistics.intervals import proportion_interval


@given(st.integers(2, 6).flatmap(lambda k: arrays(np.int64, (k, k), elements=st.integers(0, 9))))
def test_pairs_have_the_most_errors(matrix: np.ndarray) -> None:
    slow = [
        (-int(matrix[i, j]), -matrix[i, j] / matrix[i].sum(), i, j)
        for i in range(len(matrix))
        for j in range(len(matrix))
        if i != j and matrix[i, j] >= FEWEST_ERRORS
    ]
    pairs = most_confused(matrix, most=4)
    assert [(p.truth, p.predicted) for p in pairs] == [(i, j) for _, _, i, j in sorted(slow)[:4]]
    for pair in pairs:
        assert pair.errors == matrix[pair.truth, pair.predicted]
        assert pair.images == matrix[pair.truth].sum()
        assert pair.reverse == matrix[pair.predicted, pair.truth]
        assert pair.interval == proportion_interval(pair.errors, pair.images)
        assert pair.interval.low <= pair.rate <= pair.interval.high
        assert 0 < pair.p_value <= 1


def test_pairs_with_a_single_error_are_left_out() -> None:
    matrix = np.full((5, 5), 1) + np.diag(np.full(5, 20))
    assert most_confused(matrix) == ()
    assert most_confused(np.diag([3, 4])) == ()


def test_the_p_value_is_the_corrected_binomial_tail() -> None:
    """Three errors of one class, all on the same of three others: 12 pairs × (1/3)³."""
    matrix = np.diag([50, 50, 50, 50])
    matrix[0, 2] = 3
    (pair,) = most_confused(matrix)
    assert pair.p_value == pytest.approx(12 / 27)
    assert not pair.beyond_chance
    matrix[0, 2] = 8
    (pair,) = most_confused(matrix)
    assert pair.p_value == pytest.approx(12 / 3**8)
    assert pair.beyond_chance


def test_with_two_classes_nothing_is_beyond_chance() -> None:
    (pair,) = most_confused(np.array([[10, 90], [0, 100]]))
    assert pair.p_value == 1.0


def test_evenly_spread_errors_are_rarely_beyond_chance() -> None:
    """False alarms in 200 matrices: at most 5% by Bonferroni; 20 or more have probability 2e-3."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        wrong = rng.multinomial(60, np.full(9, 1 / 9), size=10)
        matrix = np.zeros((10, 10), np.int64)
        matrix[~np.eye(10, dtype=bool)] = wrong.ravel()
        alarms += any(pair.beyond_chance for pair in most_confused(matrix))
    assert alarms < 20


@given(st.integers(2, 6), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_the_confusion_matrix_counts_every_example(
    classes: int, pairs: list[tuple[int, int]]
) -> None:
    truth = np.array([a % classes for a, _ in pairs])
    predictions = np.array([b % classes for _, b in pairs])
    slow = np.zeros((classes, classes), int)
    for i, j in zip(truth, predictions, strict=True):
        slow[i, j] += 1
    matrix = confusion_matrix(np.eye(classes)[predictions], truth, classes)
    np.testing.assert_array_equal(matrix, slow)
