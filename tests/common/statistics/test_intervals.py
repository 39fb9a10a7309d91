"""Intervals agree with formulas and slow searches, and cover as often as they claim."""

from math import comb, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from common.statistics.intervals import (
    DRAWS,
    FEW,
    Difference,
    Interval,
    bootstrap_means,
    mcnemar,
    one_sided_bound,
    paired_difference,
    proportion_interval,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scores(wins: int, losses: int, ties: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 0/1 scores of `a` and `b` with these numbers of wins of `a`, losses and ties."""
    a = np.array([1] * wins + [0] * losses + [1] * ties)
    b = np.array([0] * wins + [1] * losses + [1] * ties)
    return a, b


@given(st.integers(1, 2000), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_proportion_interval_is_wilsons_formula(total: int, share: float, level: float) -> None:
    successes = round(share * total)
    result = proportion_interval(successes, total, level=level)
    z, p = norm.isf((1 - level) / 2), successes / total
    middle = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    assert result.low == pytest.approx(max(0, middle - half), abs=1e-9)
    assert result.high == pytest.approx(min(1, middle + half), abs=1e-9)


@pytest.mark.parametrize(("successes", "total"), [(-1, 3), (4, 3), (0, 0)])
def test_impossible_proportions_are_refused(successes: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"got {successes} of {total}"):
        proportion_interval(successes, total)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 5))
def test_mcnemar_is_a_sum_of_binomials(wins: int, losses: int, ties: int) -> None:
    n = wins + losses
    fewer = sum(comb(n, i) for i in range(min(wins, losses) + 1)) / 2**n
    assert mcnemar(*scores(wins, losses, ties)) == pytest.approx(min(1.0, 2 * fewer))


def test_mcnemar_refuses_scores_other_than_zero_and_one() -> None:
    with pytest.raises(ValueError, match="needs scores of 0 and 1"):
        mcnemar(np.array([0.5]), np.array([1.0]))


def score_statistic(wins: int, losses: int, n: int, delta: float) -> float:
    """Return Tango's statistic, with the likeliest probability of a loss found by search."""

    def minus_log_likelihood(q: float) -> float:
        cells = [(wins, q + delta), (losses, q), (n - wins - losses, 1 - 2 * q - delta)]
        return -sum(count * log(p) for count, p in cells if count)

    low, high = max(0.0, -delta), (1 - delta) / 2
    edge = 1e-12
    result = minimize_scalar(
        minus_log_likelihood, bounds=(low + edge, high - edge), method="bounded",
        options={"xatol": 1e-13},
    )  # fmt: skip
    q = result.x
    return float((wins - losses - n * delta) / sqrt(n * (2 * q + delta * (1 - delta))))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(5, 200))
def test_few_disagreements_invert_the_score_test(wins: int, losses: int, ties: int) -> None:
    n = wins + losses + ties
    result = paired_difference(*scores(wins, losses, ties), rng=rng())
    z = norm.isf(0.025)
    assert result.method == "mcnemar-exact"
    assert result.value == pytest.approx((wins - losses) / n)
    assert result.interval.low < result.value < result.interval.high
    assert score_statistic(wins, losses, n, result.interval.low) == pytest.approx(z, rel=1e-3)
    assert score_statistic(wins, losses, n, result.interval.high) == pytest.approx(-z, rel=1e-3)


@pytest.mark.parametrize("n", [1, 20, 400])
def test_equal_scores_have_the_score_interval_of_zero_events(n: int) -> None:
    """Without disagreements the score bounds are ±z² / (N + z²)."""
    a = np.arange(n) % 2
    result = paired_difference(a, a, rng=rng())
    edge = norm.isf(0.025) ** 2 / (n + norm.isf(0.025) ** 2)
    assert result.value == 0
    assert (result.interval.low, result.interval.high) == pytest.approx((-edge, edge))
    assert result.p_value == 1
    assert not result.distinguishable
    bound = one_sided_bound(np.zeros(n), side="upper", rng=rng())
    assert bound == pytest.approx(norm.isf(0.05) ** 2 / (n + norm.isf(0.05) ** 2))


@given(st.integers(0, 24), st.integers(0, 24), st.integers(0, 100))
def test_swapping_the_two_sets_mirrors_interval_and_bounds(
    wins: int, losses: int, ties: int
) -> None:
    if not 0 < wins + losses < FEW:
        wins, losses = wins % 12, losses % 12 + 1
    a, b = scores(wins, losses, ties)
    result, swapped = paired_difference(a, b, rng=rng()), paired_difference(b, a, rng=rng())
    assert result.value == -swapped.value
    assert result.interval.low == pytest.approx(-swapped.interval.high, abs=1e-9)
    assert result.p_value == swapped.p_value
    assert -1 <= result.interval.low <= result.value <= result.interval.high <= 1
    upper = one_sided_bound(a - b, side="upper", rng=rng())
    assert upper == pytest.approx(-one_sided_bound(b - a, side="lower", rng=rng()), abs=1e-9)
    assert result.value <= upper <= result.interval.high


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (0, 1), (24, 0), (0, 24)])
def test_interval_when_every_example_differs_in_one_direction(wins: int, losses: int) -> None:
    result = paired_difference(*scores(wins, losses, 0), rng=rng())
    n, z = wins + losses, norm.isf(0.025)
    far = n / (n + z**2)  # (N − NΔ) = z √(NΔ(1 − Δ)) up to sign
    if wins:
        assert result.interval.high == 1
        assert 0 <= 1 - result.interval.low <= 2 * (1 - far) + 1e-9
    else:
        assert result.interval.low == -1
    assert result.distinguishable == (n == 24)


def test_distinguishable_needs_both_interval_and_p_value() -> None:
    """6 wins to 0 have p = 0.03; 5 to 0 have a score interval above 0 but p = 0.06."""
    six = paired_difference(*scores(6, 0, 100), rng=rng())
    five = paired_difference(*scores(5, 0, 100), rng=rng())
    assert (six.p_value, five.p_value) == pytest.approx((2 / 64, 2 / 32))
    assert five.interval.low > 0
    assert six.distinguishable
    assert not five.distinguishable


def test_many_disagreements_are_bootstrapped() -> None:
    result = paired_difference(*scores(40, 10, 350), rng=rng())
    assert result.method == "paired-bootstrap"
    assert result.distinguishable
    error = sqrt((50 / 400 - (30 / 400) ** 2) / 400)
    assert result.interval.low == pytest.approx(30 / 400 - 1.96 * error, abs=0.3 * error)
    assert result.interval.high == pytest.approx(30 / 400 + 1.96 * error, abs=0.3 * error)


def test_one_example_shows_no_difference() -> None:
    result = paired_difference(np.array([3.5]), np.array([1.0]), rng=rng())
    assert result.value == result.interval.low == result.interval.high == 2.5
    assert result.p_value == 1
    assert not result.distinguishable
    assert one_sided_bound(np.array([2.5]), side="upper", rng=rng()) == 2.5


def test_the_same_generator_gives_the_same_interval() -> None:
    values = rng(5).standard_normal(1000)
    first = paired_difference(values, np.zeros(1000), rng=rng(1))
    assert first == paired_difference(values, np.zeros(1000), rng=rng(1))
    assert isinstance(first, Difference)
    assert isinstance(first.interval, Interval)


@pytest.mark.parametrize("distinct", [3, 1000])
def test_bootstrap_means_have_the_sampling_distribution(distinct: int) -> None:
    """Check mean and spread of both methods. False alarm: below 2e-4 (4 standard errors)."""
    n = 300
    values = rng(1).integers(0, distinct, n).astype(np.float64) ** 2
    means = bootstrap_means(values, rng=rng(2), draws=DRAWS)
    error = values.std() / sqrt(n)
    assert abs(means.mean() - values.mean()) < 4 * error / sqrt(DRAWS)
    assert abs(means.std() / error - 1) < 4 / sqrt(2 * DRAWS)


def test_bootstrap_means_agree_with_enumeration() -> None:
    """All 27 samples of three values are equally likely.

    False alarm: below 1e-3 (4 standard errors of 20,000 draws, ten means).
    """
    values = np.array([0.0, 1.0, 5.0])
    grid = np.stack(np.meshgrid(values, values, values), axis=-1).reshape(-1, 3).mean(axis=1)
    draws = 20_000
    means = bootstrap_means(values, rng=rng(3), draws=draws)
    for value in np.unique(np.round(grid, 9)):
        share = np.isclose(grid, value).mean()
        seen = np.isclose(means, value).mean()
        assert abs(seen - share) < 4 * sqrt(share * (1 - share) / draws)


@pytest.mark.parametrize("side", ["upper", "lower"])
@pytest.mark.parametrize(("wins", "losses"), [(0.01, 0.02), (0.1, 0.05)])
def test_one_sided_bounds_hold_at_their_level(side: str, wins: float, losses: float) -> None:
    """Draw 400 sets of 400. False alarm: below 1e-4 at a true coverage of 92%, our tolerance."""
    generator, held, sets = rng(7), 0, 400
    for _ in range(sets):
        d = generator.choice([1, -1, 0], 400, p=[wins, losses, 1 - wins - losses])
        upper = side == "upper"
        bound = one_sided_bound(d, side="upper" if upper else "lower", rng=generator, draws=500)
        held += bound >= wins - losses if upper else bound <= wins - losses
    assert held / sets > 0.92 - 4 * sqrt(0.92 * 0.08 / sets)
    assert held / sets < 0.995


def test_bounds_on_skewed_differences_hold() -> None:
    """Bound exponential differences, N = 100: of 2,000 the percentile bound held 93%, ours 95%.

    False alarm: below 1e-4 at a true coverage of 92% (400 sets, 4 standard errors).
    """
    generator, held, sets = rng(11), 0, 400
    for _ in range(sets):
        d = generator.exponential(1.0, 100)
        held += one_sided_bound(d, side="upper", rng=generator, draws=250) >= 1.0
    assert held / sets > 0.92 - 4 * sqrt(0.92 * 0.08 / sets)


@pytest.mark.parametrize("n", [200, 300])
def test_intervals_of_equal_pairs_cover_zero_at_their_level(n: int) -> None:
    """About 5% of 400 equal pairs have an interval without 0; N = 200 counts, 300 resamples.

    False alarm: below 1e-4 at a true coverage of 95% (4 standard errors).
    """
    generator, missed, called, sets = rng(13), 0, 0, 400
    for _ in range(sets):
        d = generator.standard_normal(n) ** 3
        difference = paired_difference(d, np.zeros(n), rng=generator, draws=250)
        missed += not difference.interval.low <= 0 <= difference.interval.high
        called += difference.distinguishable
    assert called <= missed
    assert abs(missed / sets - 0.05) < 4 * sqrt(0.05 * 0.95 / sets)


def test_unpaired_and_empty_scores_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \[3\] and \[2\]"):
        paired_difference(np.zeros(3), np.zeros(2), rng=rng())
    with pytest.raises(ValueError, match=r"got \[0\]"):
        one_sided_bound(np.zeros(0), side="upper", rng=rng())
