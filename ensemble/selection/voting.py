"""Hard, soft and weighted voting.

Axes: M members, N examples, K classes. Predictions are log-probabilities [M, N, K]; pooling
stays in log space, so that tiny probabilities survive.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int64

from common.errors import PoolError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HardVote:
    """The result of a majority vote."""

    labels: Int64[np.ndarray, " N"]
    """The class with the most votes."""
    shares: Float[np.ndarray, "N K"]
    """Each class's share of the votes; rows sum to 1."""


def hard_vote(log_probs: Float[np.ndarray, "M N K"]) -> HardVote:
    """Let each member vote for its most probable class, and count the votes.

    Ties go to the class with the higher summed probability, then to the lower index.

    Raises:
        PoolError: not [M, N, K] with at least one of each.
    """
    _check(log_probs)
    votes = log_probs.argmax(axis=2)
    classes = np.arange(log_probs.shape[2])
    counts = (votes[:, :, None] == classes).sum(axis=0)
    support = np.exp(soft_vote(log_probs).astype(np.float64))
    leading = counts == counts.max(axis=1, keepdims=True)
    return HardVote(
        labels=np.where(leading, support, -1.0).argmax(axis=1).astype(np.int64),
        shares=counts / len(log_probs),
    )


def soft_vote(log_probs: Float[np.ndarray, "M N K"]) -> Float32[np.ndarray, "N K"]:
    """Return the log of the members' mean probabilities.

    Raises:
        PoolError: not [M, N, K] with at least one of each.
    """
    _check(log_probs)
    return weighted_vote(log_probs, np.full(len(log_probs), 1.0 / len(log_probs)))


def weighted_vote(
    log_probs: Float[np.ndarray, "M N K"], weights: Float[np.ndarray, " M"]
) -> Float32[np.ndarray, "N K"]:
    """Return the log of the members' weighted mean probabilities, log Σ_m w_m p_m.

    This is the linear pool. Members of weight 0 cost nothing, so a whole pool may be passed.

    Raises:
        PoolError: not [M, N, K], or weights that are negative or do not sum to 1.
    """
    _check(log_probs)
    if weights.shape != (len(log_probs),):
        raise PoolError(f"expected {len(log_probs)} weights, got shape {weights.shape}")
    if not ((weights >= 0.0).all() and abs(weights.sum() - 1.0) <= 1e-6):
        raise PoolError(f"weights must be at least 0 and sum to 1, got {weights.tolist()}")
    support = np.flatnonzero(weights)
    peak = log_probs[support].max(axis=0).astype(np.float64)
    # A class to which all members give probability 0 has a peak of −inf and keeps it.
    safe = np.where(np.isfinite(peak), peak, 0.0)
    total = np.zeros(peak.shape)
    for member in support:
        total += weights[member] * np.exp(log_probs[member] - safe)
    with np.errstate(divide="ignore"):
        return np.asarray(safe + np.log(total), dtype=np.float32)


def _check(log_probs: Float[np.ndarray, "M N K"]) -> None:
    if log_probs.ndim != 3 or 0 in log_probs.shape:
        raise PoolError(f"expected log-probabilities [M, N, K], got shape {log_probs.shape}")
