"""The pool: every candidate's log-probabilities on the same holdout examples.

Axes: M members, N examples, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from common.errors import PoolError
from ensemble.selection.predictions import Predictions, SmoothedVotes, prob_true


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
    log_probs: Predictions
    """Float32 [M, N, K], an array or files of which one member's predictions are read at a time."""
    labels: Int64[np.ndarray, " N"]
    split_id: str
    """Identity of the split that these holdout examples belong to."""
    seconds: Float64[np.ndarray, " M"]
    """Training time of each member; NaN if it is unknown."""
    kinds: tuple[str, ...]
    """`search`, `seed` (a seed of the best configuration), or empty if unknown."""
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

    def prob_true(self, members: Sequence[int] | None = None) -> Float[np.ndarray, "N M"]:
        """Return the probability that each member, or each of `members`, gives to the true classes.

        A probability below FLOOR counts as FLOOR, as in the metrics.
        """
        chosen = range(len(self.names)) if members is None else members
        return prob_true(self.log_probs, self.labels, chosen)

    def stack(self, members: Sequence[int] | None = None) -> Float32[np.ndarray, "S N K"]:
        """Return the log-probabilities of some members, all by default, as one array."""
        chosen = range(len(self.names)) if members is None else members
        return np.stack([self.log_probs[int(member)] for member in chosen])


def refit_votes(pool: Pool, rows: Int64[np.ndarray, " R"]) -> Pool:
    """Return the pool with each one-hot vote smoothed by that member's error rate e on `rows`.

    The class voted for gets 1 − e, the others e/(K − 1) each. e is clipped between half an
    error and just below chance, so that a vote is neither certain nor reversed.
    """
    if not pool.votes:
        return pool
    if isinstance(pool.log_probs, SmoothedVotes):
        others, voted = pool.log_probs.others, pool.log_probs.voted
    else:
        others = pool.log_probs
        voted = {member: others[member].argmax(axis=1) for member in pool.votes}
    classes = others.shape[2]
    errors = {}
    for member in pool.votes:
        error = float((voted[member][rows] != pool.labels[rows]).mean())
        errors[member] = min(max(error, 0.5 / len(rows)), 0.999 * (classes - 1) / classes)
    return replace(pool, log_probs=SmoothedVotes(others, voted, errors))
