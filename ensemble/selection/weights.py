"""Convex weights on the simplex, with a certificate of how close to optimal they are.

Axes: M members, N examples. `prob_true[i, m]` is the probability T_im that member m gives
to example i's true class. The pool's NLL, f(w) = −mean log(Tw), is convex in w.
"""

import warnings

import numpy as np
from jaxtyping import Float
from scipy.optimize import LinearConstraint, minimize

from common.errors import PoolError

TINY = 1e-300
"""Stands for a probability of zero, whose NLL would otherwise be infinite."""

GAP_TARGET = 1e-7
"""Nats. Weights this close to the optimum are not polished further."""

EM_ITERATIONS = 2000
"""Most iterations of the fallback, and of shrunken weights."""


def simplex_weights(
    prob_true: Float[np.ndarray, "N M"], *, shrinkage: float = 0.0
) -> Float[np.ndarray, " M"]:
    """The weights, at least 0 and summing to 1, that minimise the linear pool's NLL.

    SciPy's SLSQP with the analytic gradient −mean_i(T_im/(Tw)_i); where it stops short, as
    it may for collinear members, EM goes on from its best point. `shrinkage` α adds a
    Dirichlet prior worth α examples per member, which pulls the weights towards uniform.
    Among several optima (duplicate members) any one may be returned.

    Raises:
        PoolError: not [N, M], non-finite or negative probabilities, or shrinkage < 0.
    """
    ratios = _scaled(prob_true)
    if shrinkage < 0.0:
        raise PoolError(f"shrinkage must be 0 or more, got {shrinkage}")
    members = ratios.shape[1]
    uniform = np.full(members, 1.0 / members)
    if members == 1:
        return uniform
    if shrinkage > 0.0:
        return em_weights(prob_true, start=uniform, shrinkage=shrinkage)
    weights = _slsqp(ratios, uniform)
    if gap(weights, ratios) > GAP_TARGET:
        # EM cannot revive a zero, so every member gets a little back first.
        polished = em_weights(ratios, start=0.99 * weights + 0.01 * uniform)
        weights = min(weights, polished, key=lambda w: gap(w, ratios))
    return weights


def gap(weights: Float[np.ndarray, " M"], prob_true: Float[np.ndarray, "N M"]) -> float:
    """The certificate max_m mean_i(T_im/(Tw)_i) − 1 ≥ f(w) − f*, in nats per example.

    It is the Frank–Wolfe duality gap of f on the simplex: no reweighting of these M members
    improves their pool's NLL on these examples by more. At least 0, and 0 at the optimum.
    It certifies optimization, not generalization.

    Raises:
        PoolError: not [N, M], non-finite or negative probabilities.
    """
    ratios = _scaled(prob_true)
    return max(0.0, float((ratios.T @ (1.0 / (ratios @ weights))).max()) / len(ratios) - 1.0)


def em_weights(
    prob_true: Float[np.ndarray, "N M"],
    *,
    start: Float[np.ndarray, " M"] | None = None,
    iterations: int = EM_ITERATIONS,
    shrinkage: float = 0.0,
) -> Float[np.ndarray, " M"]:
    """The same weights by EM: w_m ← (N·w_m·r_m + α)/(N + M·α), r_m = mean_i(T_im/(Tw)_i).

    Every step lowers f (or its penalised form) or leaves it; slow to converge. Begins at
    `start` (uniform by default), where a weight of 0 stays 0 if α is 0. Stops early once
    no weight moves by more than 1e-12.

    Raises:
        PoolError: not [N, M], non-finite or negative probabilities.
    """
    ratios = _scaled(prob_true)
    examples, members = ratios.shape
    weights = np.full(members, 1.0 / members) if start is None else start / start.sum()
    for _ in range(iterations):
        expected = weights * (ratios.T @ (1.0 / (ratios @ weights)))
        updated = (expected + shrinkage) / (examples + members * shrinkage)
        moved = np.abs(updated - weights).max()
        weights = updated
        if moved < 1e-12:
            break
    return np.asarray(weights / weights.sum())


def _slsqp(
    ratios: Float[np.ndarray, "N M"], start: Float[np.ndarray, " M"]
) -> Float[np.ndarray, " M"]:
    def value_and_gradient(w: Float[np.ndarray, " M"]) -> tuple[float, Float[np.ndarray, " M"]]:
        pooled = np.maximum(ratios @ w, TINY)
        return -float(np.log(pooled).mean()), -(ratios.T @ (1.0 / pooled)) / len(ratios)

    with warnings.catch_warnings():
        # SLSQP may step a rounding error outside its bounds, and says so.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = minimize(
            value_and_gradient,
            start,
            jac=True,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * len(start),
            constraints=LinearConstraint(np.ones(len(start)), 1.0, 1.0),
            options={"maxiter": 200, "ftol": 1e-12},
        )
    weights = np.where(found.x > 1e-10, found.x, 0.0)
    if not np.isfinite(weights).all() or weights.sum() <= 0.0:
        return start
    return np.asarray(weights / weights.sum())


def _scaled(prob_true: Float[np.ndarray, "N M"]) -> Float[np.ndarray, "N M"]:
    """Rows divided by their largest entry: f moves by a constant, gradient and gap not at all."""
    if prob_true.ndim != 2 or 0 in prob_true.shape:
        raise PoolError(f"expected probabilities [N, M] of at least one, got {prob_true.shape}")
    if not np.isfinite(prob_true).all() or (prob_true < 0.0).any():
        raise PoolError("probabilities must be finite and at least 0; leave such members out")
    floored = np.maximum(prob_true, TINY, dtype=np.float64)
    return np.asarray(floored / floored.max(axis=1, keepdims=True))
