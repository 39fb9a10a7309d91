"""How sure a number is: intervals, paired differences, one-sided bounds.

Axes: N examples, D bootstrap draws. Two sets of predictions are compared on the same
examples, by the difference of their scores on each.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Num
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

DRAWS = 2000
FEW = 25
"""With fewer disagreements than this between 0/1 scores, the bootstrap is not trusted."""
CHUNK_VALUES = 1 << 16
"""Values resampled at a time: they fit into a cache (2,000 draws of 10,000: 0.26 s, not 0.7)."""
FEW_DISTINCT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A two-sided interval."""

    low: float
    high: float
    level: float
    """Coverage aimed at, e.g. 0.95."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The mean of scores `a` less the mean of scores `b`, on the same examples."""

    value: float
    interval: Interval
    method: Literal["paired-bootstrap", "mcnemar-exact"]
    p_value: float
    """Two-sided, of the hypothesis that the two are equal."""

    @property
    def distinguishable(self) -> bool:
        """The interval excludes 0, and the p-value is below 1 − level."""
        apart = not self.interval.low <= 0 <= self.interval.high
        return apart and self.p_value < 1 - self.interval.level


def proportion_interval(successes: int, total: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval (1927) of a proportion, e.g. of an accuracy."""
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
    """Compare two lists of scores on the same N examples, e.g. of correctness or NLL.

    The interval is the percentile interval of a bootstrap over examples, and the p-value
    twice the smaller share of draws on either side of 0, but at least 2^(1 − N), which is
    what N signs can show at most. For 0/1 scores that differ on fewer than FEW examples
    (where the bootstrap is too narrow, and of no width where none differ) the interval is
    Tango's score interval and the p-value that of McNemar's exact test.

    Raises:
        ValueError: the two are not of the same length N ≥ 1.
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
    """The two-sided p-value of McNemar's exact test, for scores of 0 and 1.

    Under equality each example on which the two differ favours either with probability ½.
    """
    differences = _differences(a, b)
    if not (_binary(a) and _binary(b)):
        raise ValueError("McNemar's test needs scores of 0 and 1")
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
    """A bound that the true mean difference passes with probability 1 − `level` only.

    By the bootstrap-t over examples (Efron & Tibshirani, 1993, chapter 12). Differences of
    NLL are skewed, and there it holds its level better than a percentile: of 400 upper
    bounds on lognormal means (σ = 1.5, N = 400) 92% held, not 88%. For differences of −1,
    0 and 1 of which fewer than FEW are not 0 it is Tango's score bound, which is above 0
    even where none is.

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
    """The means of `draws` samples of N values, drawn with replacement."""
    return _resampled(values, rng=rng, draws=draws)[0]


def _resampled(
    values: Num[np.ndarray, " N"], *, rng: np.random.Generator, draws: int
) -> tuple[Float64[np.ndarray, " D"], Float64[np.ndarray, " D"]]:
    """Means and standard deviations of `draws` samples of N values, with replacement.

    Where there are few distinct values, as in a difference of correctness, how often each
    is drawn is one multinomial number: the same distribution, and N times less work.
    """
    count = len(values)
    center = values.mean(dtype=np.float64)
    centered = values - center
    distinct, counts = np.unique(centered, return_counts=True)
    means, squares = np.empty(draws), np.empty(draws)
    if len(distinct) <= FEW_DISTINCT:
        drawn = rng.multinomial(count, counts / count, size=draws)
        means[:], squares[:] = drawn @ distinct / count, drawn @ distinct**2 / count
    else:
        rows = max(1, CHUNK_VALUES // count)
        for start in range(0, draws, rows):
            part = slice(start, start + rows)
            sample = centered[rng.integers(0, count, (len(means[part]), count))]
            means[part] = sample.mean(axis=1)
            squares[part] = np.square(sample, out=sample).mean(axis=1)
    return means + center, np.sqrt(np.maximum(squares - means**2, 0.0))


def _tango(differences: np.ndarray, z: float) -> float:
    """The Δ at which the score statistic of a paired difference is z (Tango, 1998).

    With wins b, losses c and N examples, (b − c − NΔ)/√(N(2q + Δ(1 − Δ))) falls in Δ; q is
    the probability of a loss that is likeliest given Δ.
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
    # At the value itself the deviation, and with it the excess, may be 0.
    return float(brentq(excess, value + end * 1e-9, end, xtol=1e-12))


def _binary(scores: np.ndarray) -> bool:
    return bool(np.isin(scores, (0, 1)).all())


def _differences(a: np.ndarray, b: np.ndarray) -> Float64[np.ndarray, " N"]:
    if a.shape != b.shape:
        raise ValueError(
            f"paired scores must be of the same examples, got {list(a.shape)} and {list(b.shape)}"
        )
    _check(a)
    return a.astype(np.float64) - b.astype(np.float64)


def _check(scores: np.ndarray) -> None:
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"scores must be an array [N], N at least 1, got {list(scores.shape)}")
