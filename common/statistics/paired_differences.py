"""How sure a difference is that was measured a few times over, as from several seeds.

Axes: S repetitions (seeds), H hypotheses. Both sides of a pair share a seed, so what the
seed alone does to both cancels out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import ttest_1samp

from common.statistics.intervals import Interval

SAME = 1e-12
"""Differences within this distance are one and the same, up to rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanDifference:
    """The mean of S paired differences."""

    value: float
    interval: Interval | None
    """None where the spread cannot be told: of one difference, or of several of one size."""
    p_value: float | None
    """Two-sided, of the hypothesis that the true mean is 0; None of a single difference."""


def mean_difference(
    a: Float[np.ndarray, " S"], b: Float[np.ndarray, " S"], *, level: float = 0.95
) -> MeanDifference:
    """The mean of a − b, with Student's t interval and test.

    Where all differences are of one size, t is infinite or undefined and says nothing:
    differences of accuracy are multiples of one image, and five of them may well agree. The
    p-value is then that of the signs: 2^(1 − S), or 1 where all are 0.

    Raises:
        ValueError: the two are not of the same length S ≥ 1, or not finite.
    """
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(
            f"paired scores must be two arrays [S], S at least 1, got {list(a.shape)} and "
            f"{list(b.shape)}"
        )
    differences = a.astype(np.float64) - b.astype(np.float64)
    if not np.isfinite(differences).all():
        raise ValueError(f"paired scores must be finite, got differences {differences.tolist()}")
    value = float(differences.mean())
    if len(differences) == 1:
        return MeanDifference(value=value, interval=None, p_value=None)
    if np.ptp(differences) <= SAME:
        signs = 1.0 if abs(value) <= SAME else 2.0 ** (1 - len(differences))
        return MeanDifference(value=value, interval=None, p_value=signs)
    test = ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(level)
    interval = Interval(low=float(low), high=float(high), level=level)
    return MeanDifference(value=value, interval=interval, p_value=float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for there being H of them (Holm, 1979), in the order given.

    The smallest is multiplied by H, the next by H − 1 and so on, none falls below one before
    it or exceeds 1. To call those below α distinguishable errs on any true hypothesis with
    probability α at most, whatever the dependence between the tests.

    Raises:
        ValueError: a p-value lies outside of [0, 1].
    """
    for p_value in p_values:
        if not 0 <= p_value <= 1:
            raise ValueError(f"p-values must lie in [0, 1], got {p_value!r}")
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
