"""Mean differences over a few repetitions, e.g. seeds, with intervals and tests.

Axes: S repetitions (seeds), H hypotheses. Both sides of a pair share a seed, so an effect of
the seed on both cancels out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import ttest_1samp

from common.statistics.intervals import Interval

SAME = 1e-12
"""Differences closer than this are equal up to rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanDifference:
    """The mean of S paired differences."""

    value: float
    interval: Interval | None
    """None if the spread is unknown: one difference, or several that are all equal."""
    p_value: float | None
    """Two-sided, for the hypothesis that the true mean is 0; None for a single difference."""


def mean_difference(
    a: Float[np.ndarray, " S"], b: Float[np.ndarray, " S"], *, level: float = 0.95
) -> MeanDifference:
    """Return the mean of a − b with Student's t interval and test.

    If all differences are equal, t is infinite or undefined: differences of accuracy are
    multiples of one image, so five of them can well be equal. The p-value is then that of the
    sign test, 2^(1 − S), or 1 if all are 0.

    Raises:
        ValueError: the two differ in length, are empty, or are not finite.
    """
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(
            f"paired scores must be two arrays [S] with S at least 1, got {list(a.shape)} and "
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
    """Return the p-values corrected for testing H hypotheses (Holm, 1979), in the order given.

    The smallest is multiplied by H, the next by H − 1 and so on; none falls below the one
    before it or exceeds 1. Rejecting those below α rejects a true hypothesis with probability
    at most α, whatever the dependence between the tests.

    Raises:
        ValueError: a p-value lies outside [0, 1].
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
