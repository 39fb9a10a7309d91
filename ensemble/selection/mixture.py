"""Fit a mixture of a pool's members to some of its examples.

Axes: M members, R rows (examples in view), K classes. Members are compared at each one's own
temperature; a mixture pools raw probabilities and is calibrated afterwards (see
`ensemble.selection.fitting`).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from common.statistics.metrics import (
    LOG_FLOOR,
    apply_temperature,
    fit_temperature,
)
from common.statistics.temperature import TEMPERATURES, platt_smoothing
from ensemble.selection.pool import Pool
from ensemble.selection.voting import weighted_vote

Rows = Int[np.ndarray, " R"]
Weights = Float[np.ndarray, " M"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """A subset of a pool's examples; the pool's predictions are not copied."""

    pool: Pool
    rows: Rows
    raw: Float[np.ndarray, "R M"]
    """Probability that each member gives to the true class, before any temperature."""
    own: Float[np.ndarray, "R M"]
    """The same at each member's own temperature."""

    @classmethod
    def of(cls, pool: Pool, rows: Rows) -> "View":
        """Return a view of these examples, with every member's temperature fitted to them."""
        labels = pool.labels[rows]
        own = [
            prob_true_at_own_temperature(log_probs[rows], labels) for log_probs in pool.log_probs
        ]
        return cls(pool=pool, rows=rows, raw=pool.prob_true()[rows], own=np.stack(own, axis=1))

    def take(self, rows: Rows) -> "View":
        """Return a view of some of this view's rows; temperatures are not fitted again."""
        return View(pool=self.pool, rows=self.rows[rows], raw=self.raw[rows], own=self.own[rows])

    @property
    def labels(self) -> Int[np.ndarray, " R"]:
        """The true classes."""
        return np.asarray(self.pool.labels[self.rows])

    def ranked(self) -> Int[np.ndarray, " M"]:
        """Return the members by NLL, each at its own temperature, best first."""
        return np.argsort(-np.log(self.own).mean(axis=0), kind="stable")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixture:
    """A linear pool of members, calibrated by one temperature after pooling."""

    weights: Weights
    temperature: float

    @classmethod
    def fit(cls, view: View, weights: Weights) -> "Mixture":
        """Return a mixture with these weights, and fit its temperature to the examples in view."""
        pooled = pooled_log_probs(view.pool, view.rows, weights)
        temperature = fit_temperature(pooled, view.labels)
        return cls(weights=weights, temperature=temperature)

    @property
    def size(self) -> int:
        """Number of members with a weight above 0."""
        return int(np.count_nonzero(self.weights))

    def log_probs(self, pool: Pool, rows: Rows) -> Float32[np.ndarray, "R K"]:
        """Return calibrated log-probabilities of these examples."""
        return apply_temperature(pooled_log_probs(pool, rows, self.weights), self.temperature)


def prob_true_at_own_temperature(
    log_probs: Float32[np.ndarray, "R K"], labels: Int[np.ndarray, " R"]
) -> Float[np.ndarray, " R"]:
    """Return the probability of the true class at the temperature of `fit_temperature`.

    Newton's method on 1/T, in which the loss is convex, in float32 and to four digits. That
    suffices for ranking; `fit_temperature` is exact and takes twenty times as long.
    """
    # Classes first: sums over a short last axis are several times slower.
    logits = np.maximum(log_probs.T, np.float32(LOG_FLOOR), order="C")
    logits -= logits.max(axis=0)
    true = logits[labels, np.arange(len(labels))].astype(np.float64)
    smoothing = platt_smoothing(len(labels))
    others = (logits.sum(axis=0, dtype=np.float64) - true) / (len(logits) - 1)
    target = float(((1 - smoothing) * true + smoothing * others).mean())
    sharpness, sharpest, dullest = 1.0, 1.0 / TEMPERATURES[0], 1.0 / TEMPERATURES[1]
    for _ in range(30):
        masses = np.exp(np.float32(sharpness) * logits)
        totals = masses.sum(axis=0)
        masses *= logits
        means = masses.sum(axis=0) / totals
        masses *= logits
        squares = masses.sum(axis=0) / totals
        slope = float(means.mean(dtype=np.float64)) - target
        curvature = max(float((squares - means**2).mean(dtype=np.float64)), 1e-12)
        # Far from the optimum a full step may overshoot, so a step is at most a factor of 3.
        step = float(np.clip(sharpness - slope / curvature, sharpness / 3, sharpness * 3))
        moved = abs(min(max(step, dullest), sharpest) - sharpness)
        if moved <= 1e-4 * sharpness:
            break
        sharpness = min(max(step, dullest), sharpest)
    return np.asarray(np.exp(np.maximum(sharpness * true - np.log(totals), LOG_FLOOR)))


def pooled_log_probs(pool: Pool, rows: Rows, weights: Weights) -> Float32[np.ndarray, "R K"]:
    """Return the log of the weighted mean probabilities of these examples, not calibrated."""
    support = np.flatnonzero(weights)
    return weighted_vote(pool.log_probs[np.ix_(support, rows)], weights[support])
