"""Mean differences over seeds agree with Student's t, and Holm with closed testing."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from common.seeds import numpy_generator
from common.statistics.paired_differences import holm, mean_difference

probabilities = st.lists(st.floats(0, 1), max_size=6)
scores = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=9)


def test_a_mean_difference_computed_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1/√3, t(0.975, 2 df) = 4.3027."""
    result = mean_difference(np.array([3.0, 5.0, 4.0]), np.array([2.0, 3.0, 1.0]))
    assert result.value == pytest.approx(2.0)
    assert result.interval is not None
    half = 4.302653 / np.sqrt(3)
    assert (result.interval.low, result.interval.high) == pytest.approx((2 - half, 2 + half))
    assert result.p_value == pytest.approx(0.0741799)


@given(scores)
def test_the_interval_and_the_test_agree_with_the_formula(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    result, turned = mean_difference(a, b), mean_difference(b, a)
    assert turned.value == pytest.approx(-result.value)
    assert turned.p_value == pytest.approx(result.p_value)
    if result.interval is None:
        assert np.ptp(a - b) <= 1e-12
        return
    assert result.p_value is not None
    error = (a - b).std(ddof=1) / np.sqrt(len(a))
    half = stats.t.ppf(0.975, len(a) - 1) * error
    assert result.interval.high - result.interval.low == pytest.approx(2 * half)
    excluded = not result.interval.low <= 0 <= result.interval.high
    assert excluded == (result.p_value < 0.05)


def test_equal_differences_get_the_p_value_of_the_sign_test() -> None:
    """Winning one image with each of five seeds proves little: the spread is unknown, not 0."""
    ones, zeros = np.full(5, 0.1) + 0.2, np.full(5, 0.3)
    assert ones[0] != zeros[0]
    same, won = mean_difference(ones, zeros), mean_difference(ones, ones - 0.01)
    assert (same.interval, same.p_value) == (None, 1.0)
    assert (won.interval, won.p_value) == (None, 2**-4)
    single = mean_difference(np.array([0.5]), np.array([0.25]))
    assert (single.value, single.interval, single.p_value) == (0.25, None, None)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], [], r"got \[0\] and \[0\]"),
        ([1.0], [1.0, 2.0], r"got \[1\] and \[2\]"),
        ([1.0, 2.0], [1.0, np.nan], "must be finite"),
    ],
)
def test_unpaired_or_non_finite_scores_are_refused(
    a: list[float], b: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mean_difference(np.array(a), np.array(b))


def closed_testing(p_values: list[float]) -> list[float]:
    """Test every intersection by Bonferroni; a hypothesis takes its largest p-value. Slow."""
    every = range(len(p_values))
    return [
        max(
            min(1.0, size * min(p_values[j] for j in group))
            for size in range(1, len(p_values) + 1)
            for group in combinations(every, size)
            if i in group
        )
        for i in every
    ]


def test_holm_corrections_computed_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"got 1\.5"):
        holm([1.5])


@given(probabilities)
def test_holm_equals_closed_testing(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(closed_testing(p_values))


@given(probabilities)
def test_holm_does_not_depend_on_the_order(p_values: list[float]) -> None:
    turned = p_values[::-1]
    assert holm(turned)[::-1] == pytest.approx(holm(p_values))
    assert all(p <= q <= 1 for p, q in zip(p_values, holm(p_values), strict=True))


def test_false_alarms_stay_below_the_level() -> None:
    """At most one in 20 of 400 ablations of 6 factors without effect has a finding.

    The test fails by chance once in 1,000: 99.9% of such counts are 35 or fewer.
    """
    rng = numpy_generator(0, "false alarms")
    assert stats.binom.isf(0.001, 400, 0.05) == 35
    alarms = 0
    for _ in range(400):
        full, variants = rng.standard_normal(5), rng.standard_normal((6, 5))
        p_values = [mean_difference(full, variant).p_value for variant in variants]
        alarms += min(holm([p for p in p_values if p is not None])) < 0.05
    assert alarms <= 35
