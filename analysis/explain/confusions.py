"""Which class is taken for which other one, and whether that is more than chance.

Axes: K classes. A confusion matrix is int [K, K]: rows are the truth, columns the answer.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from common.statistics.intervals import Interval, proportion_interval

Ints = NDArray[np.integer[Any]]

MOST_PAIRS = 6
"""Pairs that are told of."""
FEWEST_ERRORS = 2
"""Errors that a pair needs: one alone is no pattern."""
LEVEL = 0.05
"""How often chance may make a pattern of any of all pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedPair:
    """One class taken for another."""

    truth: int
    answer: int
    errors: int
    """Images of `truth` that are called `answer`."""
    images: int
    """Images of `truth`."""
    reverse: int
    """Images of `answer` that are called `truth`."""
    p_value: float
    """Chance of as many errors, did the class's errors fall evenly on all other classes: one
    sided, exact, and multiplied by the K(K − 1) pairs there are (Bonferroni), at most 1."""

    @property
    def rate(self) -> float:
        """Share of the class."""
        return self.errors / self.images

    @property
    def interval(self) -> Interval:
        """Wilson's 95% interval of the rate; it knows nothing of how the pair was picked."""
        return proportion_interval(self.errors, self.images)

    @property
    def beyond_chance(self) -> bool:
        """More errors than chance makes, however many pairs were looked through."""
        return self.p_value < LEVEL


def most_confused(matrix: Ints, *, most: int = MOST_PAIRS) -> tuple[ConfusedPair, ...]:
    """The pairs with the most errors, at least FEWEST_ERRORS each.

    Of equal ones the higher rate comes first, then the earlier truth, then the earlier answer.
    """
    sizes = matrix.sum(axis=1)
    wrong = matrix - np.diag(np.diag(matrix))
    pairs = [(int(i), int(j)) for i, j in np.argwhere(wrong >= FEWEST_ERRORS)]
    pairs.sort(key=lambda pair: (-wrong[pair], -wrong[pair] / sizes[pair[0]], pair))
    return tuple(
        ConfusedPair(
            truth=truth,
            answer=answer,
            errors=int(wrong[truth, answer]),
            images=int(sizes[truth]),
            reverse=int(wrong[answer, truth]),
            p_value=_by_chance(int(wrong[truth, answer]), int(wrong[truth].sum()), len(matrix)),
        )
        for truth, answer in pairs[:most]
    )


def _by_chance(errors: int, all_errors: int, classes: int) -> float:
    alone = float(binom.sf(errors - 1, all_errors, 1 / (classes - 1)))
    return min(1.0, alone * classes * (classes - 1))
