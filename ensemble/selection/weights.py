"""Fit convex weights on the simplex, with a certificate of how close to optimal they are.

Axes: M members, N examples. `prob_true[i, m]` is the probability T_im that member m gives
to example i's true class. The pool's NLL, f(w) = −mean log(Tw), is convex in w.
"""

import warnings

import numpy as np
from jaxtyping import Float
from scipy.optimize import LinearConstraint, minimize

from common.errors import PoolError

TINY = 1e-300
"""Replaces a probability of zero, whose NLL would be infinite."""

GAP_TARGET = 5e-7
"""Gap in nats below which weights are not refined further."""

EM_ITERATIONS = 2000
"""Most EM iterations."""

COLUMNS = 256
"""Number of members whose probabilities are held in float64 at a time."""

JOINING = 4
"""Number of members that join in each round of `optimal_weights`."""


def simplex_weights(prob_true: Float[np.ndarray, "N M"]) -> Float[np.ndarray, " M"]:
    """Return the weights, at least 0 and summing to 1, that minimise the linear pool's NLL.

    Uses SciPy's SLSQP with the analytic gradient −mean_i(T_im/(Tw)_i); where it stops early,
    as it may for collinear members, EM continues from its result. Where there are several optima
    (duplicate members), any of them may be returned.

    Raises:
        PoolError: not [N, M], non-finite or negative probabilities.
    """
    ratios = _scaled(prob_true)
    members = ratios.shape[1]
    uniform = np.full(members, 1.0 / members)
    if members == 1:
        return uniform
    weights = _slsqp(ratios, uniform)
    if gap(weights, ratios) > GAP_TARGET:
        # EM cannot raise a weight from zero, so every member first gets a little back.
        refined = em_weights(ratios, start=0.99 * weights + 0.01 * uniform)
        weights = min(weights, refined, key=lambda w: gap(w, ratios))
    return weights


def optimal_weights(
    prob_true: Float[np.ndarray, "N M"], *, start: Float[np.ndarray, " M"]
) -> Float[np.ndarray, " M"]:
    """Return the weights of `simplex_weights`, at a cost that depends on the members in use only.

    Fully corrective Frank–Wolfe (Jaggi, 2013): the weights of the members in use are optimized;
    then the members that would help most with a small weight join them, until `gap` is below
    GAP_TARGET. It starts from the members to which `start` gives weight.

    Raises:
        PoolError: not [N, M], non-finite or negative probabilities.
    """
    _check(prob_true)
    active = np.flatnonzero(start)
    weights = np.zeros(prob_true.shape[1])
    for _ in range(prob_true.shape[1]):
        weights[:] = 0.0
        weights[active] = simplex_weights(prob_true[:, active])
        values = mean_ratios(weights, prob_true) - 1.0
        values[active] = -np.inf
        joining = np.argsort(-values, kind="stable")[:JOINING]
        joining = joining[values[joining] > GAP_TARGET]
        if not joining.size:
            break
        active = np.sort(np.concatenate([np.flatnonzero(weights), joining]))
    return weights


def gap(weights: Float[np.ndarray, " M"], prob_true: Float[np.ndarray, "N M"]) -> float:
    """Return the certificate max_m mean_i(T_im/(Tw)_i) − 1 ≥ f(w) − f*, in nats per example.

    This is the Frank–Wolfe duality gap of f on the simplex: no reweighting of these M members
    lowers their pool's NLL on these examples by more. It is 0 at the optimum, and certifies
    optimization, not generalization.

    Raises:
        PoolError: not [N, M], non-finite or negative probabilities.
    """
    _check(prob_true)
    return max(0.0, float(mean_ratios(weights, prob_true).max()) - 1.0)


def mean_ratios(
    weights: Float[np.ndarray, " M"], prob_true: Float[np.ndarray, "N M"]
) -> Float[np.ndarray, " M"]:
    """Return mean_i(T_im/(Tw)_i) for every member, in float64 and without a copy of T."""
    support = np.flatnonzero(weights)
    inverse = 1.0 / (_floored(prob_true[:, support]) @ weights[support])
    blocks = range(0, prob_true.shape[1], COLUMNS)
    sums = [_floored(prob_true[:, start : start + COLUMNS]).T @ inverse for start in blocks]
    return np.asarray(np.concatenate(sums) / len(prob_true))


def em_weights(
    prob_true: Float[np.ndarray, "N M"],
    *,
    start: Float[np.ndarray, " M"] | None = None,
    iterations: int = EM_ITERATIONS,
) -> Float[np.ndarray, " M"]:
    """Fit the same weights by EM: w_m ← w_m·mean_i(T_im/(Tw)_i).

    No step raises f, but convergence is slow. Starts from `start` (uniform by default); a weight
    of 0 stays 0. Stops once no weight moves by more than 1e-12.

    Raises:
        PoolError: not [N, M], non-finite or negative probabilities.
    """
    ratios = _scaled(prob_true)
    examples, members = ratios.shape
    weights = np.full(members, 1.0 / members) if start is None else start / start.sum()
    for _ in range(iterations):
        updated = weights * (ratios.T @ (1.0 / (ratios @ weights))) / examples
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
        # SLSQP warns when it steps outside its bounds by a rounding error.
        warnings.simplefilter("ignore", RuntimeWarning)
        result = minimize(
            value_and_gradient,
            start,
            jac=True,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * len(start),
            constraints=LinearConstraint(np.ones(len(start)), 1.0, 1.0),
            options={"maxiter": 200, "ftol": 1e-12},
        )
    weights = np.where(result.x > 1e-10, result.x, 0.0)
    if not np.isfinite(weights).all() or weights.sum() <= 0.0:
        return start
    return np.asarray(weights / weights.sum())


def _scaled(prob_true: Float[np.ndarray, "N M"]) -> Float[np.ndarray, "N M"]:
    """Divide each row by its largest entry, which changes neither gradient nor gap."""
    _check(prob_true)
    ratios = _floored(prob_true)
    ratios /= ratios.max(axis=1, keepdims=True)
    return ratios


def _floored(prob_true: Float[np.ndarray, "N M"]) -> Float[np.ndarray, "N M"]:
    """Return a copy in float64, without zeros."""
    return np.asarray(np.maximum(prob_true, TINY, dtype=np.float64))


def _check(prob_true: Float[np.ndarray, "N M"]) -> None:
    if prob_true.ndim != 2 or 0 in prob_true.shape:
        raise PoolError(
            f"expected probabilities [N, M] with N and M at least 1, got shape {prob_true.shape}"
        )
    if not (prob_true.min() >= 0.0 and prob_true.max() < np.inf):
        raise PoolError(
            "probabilities must be finite and at least 0; leave out the members that break this"
        )
