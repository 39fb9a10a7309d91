"""Prediction sets that hold the true class with a chosen probability: split conformal prediction.

Axes: N examples, K classes. The score of a class is its probability ("LAC": Sadinle, Lei &
Wasserman, "Least Ambiguous Set-Valued Classifiers with Bounded Error Levels", 2019): a set holds
the classes above one threshold, and the most probable class. Nothing is drawn at random. Adaptive
sets (APS; Romano, Sesia & Candès, 2020) are larger, most of all without random draws.

If the examples that the threshold is fitted to are exchangeable with later ones, a set holds the
true class with a probability of at least `level`, on average over both. This holds for all classes
together, not for each class. The module needs NumPy alone, so that a server starts quickly.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformalSet:
    """The threshold of a classifier's prediction sets."""

    threshold: float
    """Least probability of a class in the set, in [0, 1]."""
    level: float
    """Probability with which a set should hold the true class."""
    images: int
    """Examples that the threshold was fitted to."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if not (0 <= self.threshold <= 1 and 0 < self.level < 1):
            raise ValueError(
                f"threshold must lie in [0, 1] and level in (0, 1), got {self.threshold} and "
                f"{self.level}"
            )


def fit_conformal(
    probabilities: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], *, level: float
) -> ConformalSet:
    """Fit the threshold to N examples: the ⌊(1 − level)·(N + 1)⌋-th smallest true probability.

    With too few examples for the level, N < level/(1 − level), it is 0: every class is in the set.
    """
    if labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"expected probabilities [N, K] and labels [N], got {list(probabilities.shape)} and "
            f"{list(labels.shape)}"
        )
    true = np.sort(probabilities[np.arange(len(labels)), labels].astype(np.float64))
    # The small number keeps (1 - 0.9)·(99 + 1) at 10 in spite of rounding.
    rank = math.floor((1 - level) * (len(labels) + 1) + 1e-9)
    threshold = float(np.clip(true[rank - 1], 0.0, 1.0)) if rank else 0.0
    return ConformalSet(threshold=threshold, level=level, images=len(labels))


def prediction_set(
    probabilities: Float[np.ndarray, "... K"], threshold: float
) -> Bool[np.ndarray, "... K"]:
    """Return which classes are in the prediction set: those of at least `threshold`, and the first.

    The most probable class is always in it, so no set is empty; that can only add to the coverage.
    """
    within: np.ndarray = probabilities >= threshold
    best = np.expand_dims(probabilities.argmax(axis=-1), -1)
    np.put_along_axis(within, best, True, axis=-1)
    return within
