"""Confused classes: pairs that a classifier mistakes for each other, tested against chance.

Axes: N examples, K classes. A confusion matrix is int [K, K]: rows are true classes,
columns predicted ones.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from common.statistics.intervals import Interval, proportion_interval

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

MOST_PAIRS = 6
"""Maximum number of pairs reported."""
FEWEST_ERRORS = 2
"""Minimum number of errors of a pair: a single error is no pattern."""
LEVEL = 0.05
"""Significance level over all pairs together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedPair:
    """One class predicted as another."""

    truth: int
    predicted: int
    errors: int
    """Images of class `truth` predicted as class `predicted`."""
    images: int
    """Images of class `truth`."""
    reverse: int
    """Images of class `predicted` predicted as class `truth`."""
    p_value: float
    """Probability of at least this many errors if the class's errors were spread evenly over all
    other classes: one-sided and exact, multiplied by the K(K − 1) pairs (Bonferroni), at most 1."""

    @property
    def rate(self) -> float:
        """Share of the class's images."""
        return self.errors / self.images

    @property
    def interval(self) -> Interval:
        """Wilson's 95% interval of the rate, without correction for picking the largest pairs."""
        return proportion_interval(self.errors, self.images)

    @property
    def beyond_chance(self) -> bool:
        """The pair has more errors than chance explains, corrected for all pairs."""
        return self.p_value < LEVEL


def most_confused(matrix: Ints, *, most: int = MOST_PAIRS) -> tuple[ConfusedPair, ...]:
    """Return the `most` pairs with the most errors, each with at least FEWEST_ERRORS.

    Ties go to the higher rate, then to the earlier true class, then the earlier prediction.
    """
    sizes = matrix.sum(axis=1)
    wrong = matrix - np.diag(np.diag(matrix))
    pairs = [(int(i), int(j)) for i, j in np.argwhere(wrong >= FEWEST_ERRORS)]
    pairs.sort(key=lambda pair: (-wrong[pair], -wrong[pair] / sizes[pair[0]], pair))
    return tuple(
        ConfusedPair(
            truth=truth,
            predicted=predicted,
            errors=int(wrong[truth, predicted]),
            images=int(sizes[truth]),
            reverse=int(wrong[predicted, truth]),
            p_value=_p_value(int(wrong[truth, predicted]), int(wrong[truth].sum()), len(matrix)),
        )
        for truth, predicted in pairs[:most]
    )


def confusion_matrix(log_probs: Floats, labels: Ints, classes: int) -> NDArray[np.int64]:
    """Count predictions [N, K] by true and predicted class, int [K, K]."""
    flat = labels.astype(np.int64) * classes + log_probs.argmax(axis=1)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def _p_value(errors: int, class_errors: int, classes: int) -> float:
    single = float(binom.sf(errors - 1, class_errors, 1 / (classes - 1)))
    return min(1.0, single * classes * (classes - 1))
