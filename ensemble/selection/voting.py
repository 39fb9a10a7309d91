"""Hard, soft and weighted voting.

Axes: M members, N examples, K classes. Predictions are log-probabilities [M, N, K]; pooling
stays in log space, so that tiny probabilities survive.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int64

from common.errors import PoolError

TIE_BREAK = 1e-3
"""Share of a vote that the winner gets from the others, so that it has the top probability."""


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


def voting_log_probs(
    log_probs: Float[np.ndarray, "M N K"], weights: Float[np.ndarray, " M"], *, error_rate: float
) -> dict[str, Float32[np.ndarray, "N K"]]:
    """Return the log-probabilities of `hard_vote`, `soft_vote` and `weighted_vote`, by name.

    Only members with a weight above 0 vote; hard and soft votes count them equally. Members that
    are pooled at their own temperatures also vote at them: pass `Member.as_pooled`.

    A hard vote's probabilities are smoothed shares of the votes: (1 − ε)·share + ε/K, with
    ε = `error_rate`·K/(K − 1), so that a class on which all agree gets 1 − `error_rate` and the
    NLL is finite. Smoothing keeps the order of the shares. Among classes with equally many votes
    the winner of `hard_vote` comes first: it gets a thousandth of a vote from the others.

    Raises:
        PoolError: not [M, N, K], invalid weights, or an error rate that is not above 0 and below
            chance.
    """
    _check(log_probs)
    weighted = weighted_vote(log_probs, weights)
    classes = log_probs.shape[2]
    if not 0.0 < error_rate < (classes - 1) / classes:
        raise PoolError(
            f"the smoothing of hard votes must be above 0 and below {(classes - 1) / classes:.3g}, "
            f"the error rate of chance; got {error_rate}"
        )
    voters = log_probs[np.flatnonzero(weights)]
    vote = hard_vote(voters)
    rows, moved = np.arange(len(vote.labels)), TIE_BREAK / len(voters)
    shares = (1.0 - moved) * vote.shares
    shares[rows, vote.labels] += moved
    spread = error_rate * classes / (classes - 1)
    return {
        "hard_vote": np.log((1.0 - spread) * shares + spread / classes).astype(np.float32),
        "soft_vote": soft_vote(voters),
        "weighted_vote": weighted,
    }


def vote_error_rate(
    log_probs: Float[np.ndarray, "M N K"],
    weights: Float[np.ndarray, " M"],
    labels: Int64[np.ndarray, " N"],
) -> float:
    """Return the smoothing of `voting_log_probs`: the error rate of unanimous votes on holdout.

    If w of n unanimous votes are wrong, it is (w + ½)/(n + 1), which is never 0 or 1; it is kept
    below chance.

    Raises:
        PoolError: as `voting_log_probs`.
    """
    _check(log_probs)
    vote = hard_vote(log_probs[np.flatnonzero(weights)])
    unanimous = vote.shares.max(axis=1) == 1.0
    wrong = int((vote.labels != labels)[unanimous].sum())
    chance = 1.0 - 1.0 / int(log_probs.shape[2])
    return min((wrong + 0.5) / (int(unanimous.sum()) + 1.0), 0.999 * chance)


def _check(log_probs: Float[np.ndarray, "M N K"]) -> None:
    if log_probs.ndim != 3 or 0 in log_probs.shape:
        raise PoolError(f"expected log-probabilities [M, N, K], got shape {log_probs.shape}")
