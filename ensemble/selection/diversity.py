"""Measure how members differ, for reports and to find near-duplicates.

Axes: M members, N examples, K classes. Diversity is never an objective: a pool's gain over its
members depends on the labels ("we should not be maximising diversity", Wood et al.). A member's
contribution is therefore measured by `marginal_values`; the measures without labels only
describe.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from ensemble.selection.weights import mean_ratios

NEAR = 0.02
"""Largest `probability_distance` of near-duplicates."""


def disagreement(predicted: Int[np.ndarray, "M N"]) -> Float[np.ndarray, "M M"]:
    """Return the share of examples on which two members name different classes, per pair."""
    return np.stack([(predicted != row).mean(axis=1) for row in predicted])


def double_fault(
    predicted: Int[np.ndarray, "M N"], labels: Int[np.ndarray, " N"]
) -> Float[np.ndarray, "M M"]:
    """Return the share of examples on which two members are both wrong (Giacinto & Roli, 2001).

    The diagonal holds the members' error rates.
    """
    wrong = (predicted != labels).astype(np.float64)
    return np.asarray(wrong @ wrong.T / predicted.shape[1])


def kohavi_wolpert(predicted: Int[np.ndarray, "M N"], labels: Int[np.ndarray, " N"]) -> float:
    """Return the Kohavi–Wolpert variance: the mean of r_i(M − r_i)/M², with r_i members right on i.

    It equals (M − 1)/2M times the mean, over pairs of members, of the share of examples on
    which exactly one of the two is right (Kuncheva & Whitaker, 2003).
    """
    right = (predicted == labels).mean(axis=0)
    return float((right * (1.0 - right)).mean())


def marginal_values(
    prob_true: Float[np.ndarray, "N M"], weights: Float[np.ndarray, " M"]
) -> Float[np.ndarray, " M"]:
    """Return each member's marginal value s_m = mean_i(T_im/p̄_i) − 1, in nats per unit of weight.

    `prob_true[i, m]` is the probability T_im of the true class; p̄ is the pool's probability
    under `weights`. s_m is minus the slope of the pool's NLL as weight moves to m, so members
    gain from examples that the pool gets wrong. The weighted mean over the members is 0.
    """
    return mean_ratios(weights, prob_true) - 1.0


def pooling_gain(prob_true: Float[np.ndarray, "N M"], weights: Float[np.ndarray, " M"]) -> float:
    """Return the weighted mean of the members' NLLs minus the pool's NLL, in nats per example.

    It is mean_i[log p̄_i − Σ_m w_m log T_im], which is at least 0 (Jensen).
    """
    support = np.flatnonzero(weights)
    chosen, shares = prob_true[:, support].astype(np.float64), weights[support]
    return float((np.log(chosen @ shares) - np.log(chosen) @ shares).mean())


def probability_distance(log_probs: Float[np.ndarray, "M N K"]) -> Float[np.ndarray, "M M"]:
    """Return the root mean square over examples of the Euclidean distance between members' rows.

    0 for identical members, √2 for members that are certain of different classes everywhere.
    """
    examples = log_probs.shape[1]
    flat = np.exp(log_probs.reshape(len(log_probs), -1).astype(np.float64))
    gram = flat @ flat.T / examples
    squares = np.diag(gram)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2.0 * gram, 0.0))
    np.fill_diagonal(distances, 0.0)
    return np.asarray(distances)


def near_duplicates(
    log_probs: Float[np.ndarray, "M N K"], *, distance: float = NEAR
) -> tuple[tuple[int, int], ...]:
    """Return the pairs (a, b), a < b, of members at most `distance` apart.

    See `probability_distance`. Two seeds of one recipe are usually several times as far apart.
    """
    close: Bool[np.ndarray, "M M"] = probability_distance(log_probs) <= distance
    rows, columns = np.nonzero(np.triu(close, k=1))
    return tuple(zip(rows.tolist(), columns.tolist(), strict=True))
