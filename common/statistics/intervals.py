"""Confidence intervals, paired differences and one-sided bounds.

Axes: N examples, D bootstrap draws. Two sets of predictions are compared on the same
examples, by the difference of their scores on each.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Num
from scipy.optimize import brentq
from scipy.stats import binomtest, bootstrap, norm

DRAWS, MOST_DRAWS = 2000, 100_000
FEW = 25
"""Number of disagreements between 0/1 scores below which a bootstrap interval is too narrow."""
BATCH_VALUES = 1 << 16
"""Values resampled at a time, so that they fit into the processor's cache: 20,000 draws of
10,000 take 0.8 s, against 1.5 s and 1.6 GB all at once."""
FEW_DISTINCT = 256
"""Most distinct values for which the bootstrap draws counts instead of examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A two-sided interval."""

    low: float
    high: float
    level: float
    """Nominal coverage, e.g. 0.95."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The mean of scores `a` minus the mean of scores `b`, on the same examples."""

    value: float
    interval: Interval
    method: Literal["paired-bootstrap", "mcnemar-exact"]
    p_value: float
    """Two-sided, for the hypothesis that the two means are equal."""

    @property
    def distinguishable(self) -> bool:
        """Return whether the interval excludes 0 and the p-value is below 1 − level."""
        apart = not self.interval.low <= 0 <= self.interval.high
        return apart and self.p_value < 1 - self.interval.level


def draws_at(level: float) -> int:
    """Return how many bootstrap draws an interval at this level needs: 10 beyond either end.

    At most MOST_DRAWS, which is enough for levels up to 0.9998.
    """
    return min(MOST_DRAWS, max(DRAWS, math.ceil(20 / (1 - level))))


def proportion_interval(successes: int, total: int, *, level: float = 0.95) -> Interval:
    """Return Wilson's score interval (1927) for a proportion, e.g. an accuracy."""
    if not 0 <= successes <= total or total < 1:
        raise ValueError(f"successes must lie in 0 … total ≥ 1, got {successes} of {total}")
    interval = binomtest(successes, total).proportion_ci(level, method="wilson")
    return Interval(low=float(interval.low), high=float(interval.high), level=level)


def paired_difference(
    a: Num[np.ndarray, " N"],
    b: Num[np.ndarray, " N"],
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    draws: int = DRAWS,
) -> Difference:
    """Compare two sets of scores on the same N examples, e.g. correctness or NLL.

    The interval is the percentile interval of a bootstrap over examples. The p-value is twice
    the smaller share of draws on either side of 0, and at least 2^(1 − N), the least that N
    signs can reach. For 0/1 scores that differ on fewer than FEW examples, the bootstrap is
    too narrow (its width is 0 if none differ); the interval is then Tango's score interval and
    the p-value comes from McNemar's exact test.

    Raises:
        ValueError: the two differ in length, or are empty.
    """
    differences = _differences(a, b)
    value, alpha = float(differences.mean()), 1 - level
    if _binary(a) and _binary(b) and np.count_nonzero(differences) < FEW:
        z = float(norm.isf(alpha / 2))
        low, high = _tango(differences, -z), _tango(differences, z)
        interval = Interval(low=low, high=high, level=level)
        p_value = mcnemar(a, b)
        return Difference(value=value, interval=interval, method="mcnemar-exact", p_value=p_value)
    means = bootstrap_means(differences, rng=rng, draws=draws)
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2]).tolist()
    interval = Interval(low=low, high=high, level=level)
    beyond = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p_value = min(1.0, max(2 * (beyond + 1) / (draws + 1), 2.0 ** (1 - len(differences))))
    return Difference(value=value, interval=interval, method="paired-bootstrap", p_value=p_value)


def mcnemar(a: Num[np.ndarray, " N"], b: Num[np.ndarray, " N"]) -> float:
    """Return the two-sided p-value of McNemar's exact test, for scores of 0 and 1.

    If the two are equal, each example on which they differ favours either with probability ½.
    """
    differences = _differences(a, b)
    if not (_binary(a) and _binary(b)):
        raise ValueError("McNemar's test needs scores of 0 and 1; compare others by bootstrap")
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    if wins + losses == 0:
        return 1.0
    return float(binomtest(wins, wins + losses, 0.5).pvalue)


def one_sided_bound(
    differences: Num[np.ndarray, " N"],
    *,
    side: Literal["upper", "lower"],
    rng: np.random.Generator,
    level: float = 0.95,
    draws: int = DRAWS,
) -> float:
    """Return a one-sided bound: the true mean lies beyond it with probability 1 − `level`.

    It is a bootstrap-t over examples (Efron & Tibshirani, 1993, chapter 12). Differences of
    NLL are skewed, and there it covers better than a percentile bound: 92% of 400 upper bounds
    on lognormal means (σ = 1.5, N = 400) held, against 88%. For differences of −1, 0 and 1 of
    which fewer than FEW are not 0, it is Tango's score bound, which differs from 0 even if
    all differences are 0.

    Raises:
        ValueError: there are no differences.
    """
    _check(differences)
    sign = 1.0 if side == "upper" else -1.0
    if np.isin(differences, (-1, 0, 1)).all() and np.count_nonzero(differences) < FEW:
        return _tango(differences, sign * float(norm.ppf(level)))
    means, deviations = _resampled(differences, rng=rng, draws=draws)
    mean = float(differences.mean(dtype=np.float64))
    spread = np.where(deviations > 0, deviations, np.inf)
    studentized = sign * (means - mean) / spread
    return mean - sign * float(np.quantile(studentized, 1 - level) * differences.std())


def bootstrap_means(
    values: Num[np.ndarray, " N"], *, rng: np.random.Generator, draws: int = DRAWS
) -> Float64[np.ndarray, " D"]:
    """Return the means of `draws` samples of N values, drawn with replacement.

    The values of a paired bootstrap are the differences of the pairs: resampling pairs and
    resampling their differences is the same.
    """
    return _resampled(values, rng=rng, draws=draws)[0]


def _resampled(
    values: Num[np.ndarray, " N"], *, rng: np.random.Generator, draws: int
) -> tuple[Float64[np.ndarray, " D"], Float64[np.ndarray, " D"]]:
    """Return the means and standard deviations of `draws` bootstrap samples."""
    count = len(values)
    distinct, counts = np.unique(values.astype(np.float64), return_counts=True)
    if len(distinct) <= FEW_DISTINCT:
        # A sample's means depend on the number of times each value is drawn, which is
        # multinomial. 2,000 draws of 10,000 differences of correctness take under 1 ms this
        # way and 70 ms with scipy.stats.bootstrap.
        center = float(values.mean(dtype=np.float64))
        distinct -= center
        drawn = rng.multinomial(count, counts / count, size=draws)
        means, squares = drawn @ distinct / count, drawn @ distinct**2 / count
        return means + center, np.sqrt(np.maximum(squares - means**2, 0.0))
    result = bootstrap(
        (values.astype(np.float64),),
        lambda sample, axis: np.stack([sample.mean(axis=axis), sample.std(axis=axis)]),
        n_resamples=draws,
        batch=max(1, BATCH_VALUES // count),
        vectorized=True,
        method="percentile",
        rng=rng,
    )
    means, deviations = result.bootstrap_distribution
    return means, deviations


def _tango(differences: np.ndarray, z: float) -> float:
    """Return the Δ at which the score statistic of a paired difference is z (Tango, 1998).

    With b wins, c losses and N examples, (b − c − NΔ)/√(N(2q + Δ(1 − Δ))) decreases in Δ; q is
    the maximum-likelihood probability of a loss given Δ.
    """
    n = len(differences)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())

    def excess(delta: float) -> float:
        linear = -(wins + losses) + (2 * n - wins + losses) * delta
        root = np.sqrt(max(linear**2 + 8 * n * losses * delta * (1 - delta), 0.0))
        q = (root - linear) / (4 * n)
        deviation = np.sqrt(max(n * (2 * q + delta * (1 - delta)), 0.0))
        return float(wins - losses - n * delta + z * deviation)

    value, end = (wins - losses) / n, float(np.sign(z))
    if value == end:
        return end
    # At the value itself the deviation, and so the excess, can be 0.
    return float(brentq(excess, value + end * 1e-9, end, xtol=1e-12))


def _binary(scores: np.ndarray) -> bool:
    return bool(np.isin(scores, (0, 1)).all())


def _differences(a: np.ndarray, b: np.ndarray) -> Float64[np.ndarray, " N"]:
    if a.shape != b.shape:
        raise ValueError(
            f"paired scores must cover the same examples, got {list(a.shape)} and {list(b.shape)}"
        )
    _check(a)
    return a.astype(np.float64) - b.astype(np.float64)


def _check(scores: np.ndarray) -> None:
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"scores must be an array [N] with N at least 1, got {list(scores.shape)}")
