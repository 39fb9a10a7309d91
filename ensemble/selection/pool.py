"""The pool: every candidate's log-probabilities on the same holdout examples.

Axes: M members, N examples, K classes.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, Int64

from common.errors import PoolError
from common.statistics.metrics import FLOOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A candidate that was left out, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """Candidates for an ensemble, with predictions for the same examples."""

    names: tuple[str, ...]
    """One unique name per member."""
    log_probs: Float32[np.ndarray, "M N K"]
    labels: Int64[np.ndarray, " N"]
    split_id: str
    """Identity of the split that these holdout examples belong to."""
    seconds: Float64[np.ndarray, " M"]
    """Training time of each member; NaN where it is unknown."""
    kinds: tuple[str, ...]
    """`search`, `seed` (a seed of the best configuration), or empty where unknown."""
    votes: tuple[int, ...] = ()
    """Members whose predictions were one-hot votes; see `refit_votes`."""
    skipped: tuple[Skipped, ...] = ()
    """Candidates that were left out."""

    def __post_init__(self) -> None:
        """Refuse shapes that do not fit together."""
        members, examples, _ = self.log_probs.shape
        counts = [len(self.names), len(self.kinds), len(self.seconds)]
        if counts != [members] * 3:
            raise PoolError(
                f"{members} members need as many names, kinds and seconds, got {counts}"
            )
        if self.labels.shape != (examples,):
            raise PoolError(f"labels must be [{examples}], got {list(self.labels.shape)}")

    def prob_true(self) -> Float64[np.ndarray, "N M"]:
        """Return the probability that each member gives to each example's true class.

        A probability below FLOOR counts as FLOOR, as in the metrics.
        """
        true = self.log_probs[:, np.arange(len(self.labels)), self.labels]
        return np.maximum(np.exp(true.T.astype(np.float64)), FLOOR)


def refit_votes(pool: Pool, rows: Int64[np.ndarray, " R"]) -> Pool:
    """Return the pool with each one-hot vote smoothed by that member's error rate e on `rows`.

    The class voted for gets 1 − e, the others e/(K − 1) each. e is clipped between half an
    error and just below chance, so that a vote is neither certain nor reversed.
    """
    if not pool.votes:
        return pool
    log_probs = pool.log_probs.copy()
    classes = log_probs.shape[2]
    for member in pool.votes:
        voted = log_probs[member].argmax(axis=1)
        error = float((voted[rows] != pool.labels[rows]).mean())
        error = min(max(error, 0.5 / len(rows)), 0.999 * (classes - 1) / classes)
        log_probs[member] = np.log(error / (classes - 1))
        log_probs[member, np.arange(len(voted)), voted] = np.log1p(-error)
    return replace(pool, log_probs=log_probs)
