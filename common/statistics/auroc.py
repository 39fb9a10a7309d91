"""The area under the ROC curve, with DeLong's interval.

Axes: N positive and M negative scores.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy.stats import norm, rankdata

from common.statistics.intervals import Interval


def auroc(
    positive: Float[np.ndarray, " N"], negative: Float[np.ndarray, " M"], *, level: float = 0.95
) -> tuple[float, Interval]:
    """Return the probability that a positive scores higher than a negative, ties counting half.

    The interval uses the variance of DeLong, DeLong & Clarke-Pearson (1988), by ranks in
    O((N + M) log(N + M)) as Sun & Xu (2014) do, on the scale of log-odds, where it stays in [0, 1].
    At 0 and 1 that variance is 0. Min(N, M) disjoint pairs are then all in the same order, which
    bounds the probability p of one by p^min(N, M) ≥ (1 − level)/2.

    Raises:
        ValueError: fewer than two scores on a side.
    """
    n, m = len(positive), len(negative)
    if min(n, m) < 2:
        raise ValueError(f"there must be two scores or more on each side, got {n} and {m}")
    ranks = rankdata(np.concatenate([positive, negative]).astype(np.float64))
    # Share of the negatives that each positive beats, and of the positives that beat each negative.
    wins = (ranks[:n] - rankdata(positive)) / m
    losses = 1 - (ranks[n:] - rankdata(negative)) / n
    value = float(wins.mean())
    deviation = math.sqrt(wins.var(ddof=1) / n + losses.var(ddof=1) / m)
    if deviation == 0 or not 0 < value < 1:
        extreme = ((1 - level) / 2) ** (1 / min(n, m))
        low, high = (extreme, 1.0) if value >= 0.5 else (0.0, 1 - extreme)
        return value, Interval(low=low, high=high, level=level)
    odds = math.log(value / (1 - value))
    margin = float(norm.isf((1 - level) / 2)) * deviation / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-(odds + sign * margin))) for sign in (-1, 1))
    return value, Interval(low=low, high=high, level=level)
