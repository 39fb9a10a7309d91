"""Certify an ensemble's weights: bound what other weights could gain on the same examples.

Axes: M members, R rows (examples in view), K classes. T_im is the probability that member m gives
to example i's true class, as it enters the pool (raw, or at the member's own temperature).

f(w) = −mean_i log (Tw)_i, the NLL of the pool before its temperature, is convex in w. For any
weights w' convexity gives f(w) − f(w') ≤ ∇f(w)·(w − w') = mean_i (Tw')_i/(Tw)_i − 1, and the right
side is largest at a vertex. So f(w) − min f ≤ gap(w) = max_m mean_i T_im/(Tw)_i − 1 (Frank–Wolfe).
The bound is of first order: near the optimum it is proportional to the distance of w from it, while
the loss is proportional to the square of that distance. At weights that were not optimized, such as
uniform ones, it says little.

The certificate therefore finds the optimal weights w* and bounds the loss in two steps:

    f(w) − min f = [f(w) − f(w*)] + [f(w*) − min f] ≤ [f(w) − f(w*)] + gap(w*).

The first bracket is measured and the second is about 1e-7, so both sides are practically equal.

The ensemble is the pool after its temperature: F(w) = −mean_i log softmax(s·log p̄_i(w))_y, with p̄_i
the pool's probabilities of all classes and the sharpness s = 1/temperature fitted to w, a convex
problem. F(w) − F(w*) is what the chosen weights cost after calibration. F is not convex in w, so
this is the difference to the weights that are optimal before the temperature, not a bound over all
weights; if it is negative, the chosen weights do better after the temperature. Nothing here says
how either would do on new examples.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from common.statistics.metrics import nll
from ensemble.selection.mixture import Mixture, View, Weights
from ensemble.selection.weights import TINY, gap, optimal_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimality:
    """Loss of the weights against the optimal weights w* of some members, in nats per example."""

    excess: float
    """F(w) − F(w*), each after its own temperature; may be below 0."""
    excess_before_temperature: float
    """f(w) − f(w*), at least −gap."""
    gap: float
    """No weights of these members lower f below f(w*) by more than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The certificate of the ensemble, on the examples that it was fitted to."""

    nll: float
    """F(w), the ensemble's NLL in sample, after its temperature."""
    support: Optimality
    """Against the optimal weights of the same members."""
    pool: Optimality
    """Against the optimal weights of all members of the pool."""


def certify(view: View, mixture: Mixture) -> Certificate:
    """Return the certificate of a mixture that was fitted to the examples in view."""
    weights = mixture.weights
    support = np.flatnonzero(weights)
    prob_true = view.prob_true(mixture.pooling)
    shipped = nll(mixture.log_probs(view.pool, view.rows), view.labels)
    # The search for the pool's optimum starts from the members' optimum, so it never ends worse.
    among_members = np.zeros_like(weights)
    among_members[support] = optimal_weights(prob_true[:, support], start=weights[support])
    whole = optimal_weights(prob_true, start=among_members)

    def optimality(
        optimum: Weights, scope: Float[np.ndarray, "R S"], shares: Weights
    ) -> Optimality:
        best = Mixture.fit(view, optimum, mixture.pooling)
        return Optimality(
            excess=shipped - nll(best.log_probs(view.pool, view.rows), view.labels),
            excess_before_temperature=_nll(prob_true, weights) - _nll(prob_true, optimum),
            gap=gap(shares, scope),
        )

    return Certificate(
        nll=shipped,
        support=optimality(among_members, prob_true[:, support], among_members[support]),
        pool=optimality(whole, prob_true, whole),
    )


def _nll(prob_true: Float[np.ndarray, "R M"], weights: Weights) -> float:
    support = np.flatnonzero(weights)
    pooled = prob_true[:, support].astype(np.float64) @ weights[support]
    return -float(np.log(np.maximum(pooled, TINY)).mean())
