"""Fit a mixture of a pool's members to some of its examples.

Axes: M members, R rows (examples in view), K classes. Members are compared at each one's own
temperature. A mixture pools the members' probabilities as they are (`raw`) or at each member's own
temperature (`calibrated`); either way, the pool is then calibrated by one temperature.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

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
Pooling = Literal["raw", "calibrated"]

LAST_STEP = 5e-3
"""Relative size of a Newton step below which no further step is needed."""

CHUNK_VALUES = 1 << 16
"""Scores in a chunk, unless CHUNK_COLUMNS are more."""

CHUNK_COLUMNS = 64
"""Smallest number of examples in a chunk."""

NEWTON_STEPS = 30
"""Largest number of Newton steps; from the temperature of a similar fit it takes two or three."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """A subset of a pool's examples; the pool's predictions are not copied."""

    pool: Pool
    rows: Rows
    temperatures: Float[np.ndarray, " M"]
    """Each member's own temperature, fitted to the examples in view."""
    nlls: Float[np.ndarray, " M"]
    """Each member's NLL at its own temperature."""

    @classmethod
    def of(cls, pool: Pool, rows: Rows, *, start: Float[np.ndarray, " M"] | None = None) -> "View":
        """Return a view of these examples, with every member's temperature fitted to them.

        `start` are temperatures to start from, such as those of a larger view.
        """
        labels = pool.labels[rows]
        start = np.ones(len(pool.names)) if start is None else start
        temperatures, nlls = np.empty((2, len(pool.names)))
        for member, log_probs in enumerate(pool.log_probs):
            scores = centred_scores(log_probs[rows].T)
            temperatures[member] = fit_scores(scores, labels, start=float(start[member]))
            nlls[member] = -log_prob_true(scores, labels, temperatures[member]).mean()
        return cls(pool=pool, rows=rows, temperatures=temperatures, nlls=nlls)

    @property
    def labels(self) -> Int[np.ndarray, " R"]:
        """The true classes."""
        return np.asarray(self.pool.labels[self.rows])

    def ranked(self) -> Int[np.ndarray, " M"]:
        """Return the members by NLL, each at its own temperature, best first."""
        return np.argsort(self.nlls, kind="stable")

    def prob_true(
        self, pooling: Pooling, members: Sequence[int] | None = None
    ) -> Float[np.ndarray, "R M"]:
        """Return the true class's probabilities under all members, or under these.

        They are as they enter a pool of this kind: `raw`, or at the member's own temperature.
        """
        if pooling == "raw":
            everywhere = self.pool.prob_true(members)
            return everywhere if len(self.rows) == len(everywhere) else everywhere[self.rows]
        everyone = enumerate(self.pool.log_probs)
        chosen = everyone if members is None else ((m, self.pool.log_probs[m]) for m in members)
        labels = self.labels
        count = len(self.pool.names) if members is None else len(members)
        own = np.empty((len(self.rows), count))
        for place, (member, log_probs) in enumerate(chosen):
            scores = centred_scores(log_probs[self.rows].T)
            own[:, place] = np.exp(log_prob_true(scores, labels, self.temperatures[member]))
        return own


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixture:
    """A linear pool of members, calibrated by one temperature after pooling."""

    weights: Weights
    temperature: float
    """Applied after pooling."""
    member_temperatures: Float[np.ndarray, " M"] | None = None
    """Applied to each member before pooling; None for raw pooling."""

    @classmethod
    def fit(cls, view: View, weights: Weights, pooling: Pooling = "raw") -> "Mixture":
        """Return a mixture with these weights, and fit its temperature to the examples in view."""
        own = None if pooling == "raw" else view.temperatures
        pooled = pooled_log_probs(view.pool, view.rows, weights, own)
        temperature = fit_temperature(pooled, view.labels)
        return cls(weights=weights, temperature=temperature, member_temperatures=own)

    @property
    def size(self) -> int:
        """Number of members with a weight above 0."""
        return int(np.count_nonzero(self.weights))

    @property
    def pooling(self) -> Pooling:
        """Say whether members are pooled raw or at their own temperatures."""
        return "raw" if self.member_temperatures is None else "calibrated"

    def log_probs(self, pool: Pool, rows: Rows) -> Float32[np.ndarray, "R K"]:
        """Return calibrated log-probabilities of these examples."""
        pooled = pooled_log_probs(pool, rows, self.weights, self.member_temperatures)
        return apply_temperature(pooled, self.temperature)


def centred_scores(log_probs: Float32[np.ndarray, "K R"]) -> Float32[np.ndarray, "K R"]:
    """Return log-probabilities with the metrics' floor, minus the largest of each example.

    Classes come first: sums over a short last axis are several times slower.
    """
    scores = np.maximum(log_probs, np.float32(LOG_FLOOR), order="C")
    scores -= scores.max(axis=0)
    return np.asarray(scores)


def fit_scores(
    scores: Float32[np.ndarray, "K R"], labels: Int[np.ndarray, " R"], *, start: float = 1.0
) -> float:
    """Return the temperature that `fit_temperature` finds for `centred_scores`, from float32.

    Newton's method on 1/T, in which the loss is convex, to four digits. That suffices for
    choosing; `fit_temperature` is exact and takes twenty times as long. A single class keeps
    T = 1.
    """
    true = scores[labels, np.arange(len(labels))].astype(np.float64)
    if len(scores) == 1:
        return 1.0
    smoothing = platt_smoothing(len(labels))
    others = (scores.sum(axis=0, dtype=np.float64) - true) / (len(scores) - 1)
    target = float(((1 - smoothing) * true + smoothing * others).mean())
    sharpest, dullest = 1.0 / TEMPERATURES[0], 1.0 / TEMPERATURES[1]
    sharpness = min(max(1.0 / start, dullest), sharpest)
    for _ in range(NEWTON_STEPS):
        slope, curvature = -target, 0.0
        for columns in _chunks(scores):
            part = scores[:, columns]
            masses = np.exp(np.float32(sharpness) * part)
            totals = masses.sum(axis=0)
            masses *= part
            means = masses.sum(axis=0) / totals
            masses *= part
            squares = masses.sum(axis=0) / totals
            slope += float(means.sum(dtype=np.float64)) / len(labels)
            curvature += float((squares - means**2).sum(dtype=np.float64)) / len(labels)
        curvature = max(curvature, 1e-12)
        # Far from the optimum a full step may overshoot, so a step is at most a factor of 3.
        step = float(np.clip(sharpness - slope / curvature, sharpness / 3, sharpness * 3))
        step = min(max(step, dullest), sharpest)
        moved, sharpness = abs(step - sharpness), step
        # Convergence is quadratic, so the error after this step is about its square.
        if moved <= LAST_STEP * sharpness:
            break
    return 1.0 / sharpness


def log_prob_true(
    scores: Float32[np.ndarray, "K R"], labels: Int[np.ndarray, " R"], temperature: float
) -> Float[np.ndarray, " R"]:
    """Return the true class's log-probability at a temperature, with the metrics' floor."""
    sharpness = 1.0 / temperature
    totals = np.empty(len(labels))
    for columns in _chunks(scores):
        totals[columns] = np.exp(np.float32(sharpness) * scores[:, columns]).sum(axis=0)
    true = scores[labels, np.arange(len(labels))].astype(np.float64)
    return np.asarray(np.maximum(sharpness * true - np.log(totals), LOG_FLOOR))


def _chunks(scores: Float32[np.ndarray, "K R"]) -> Iterator[slice]:
    """Yield slices of the examples whose temporaries stay in the processor's cache."""
    columns = max(CHUNK_COLUMNS, CHUNK_VALUES // len(scores))
    for start in range(0, scores.shape[1], columns):
        yield slice(start, start + columns)


def pooled_log_probs(
    pool: Pool,
    rows: Rows,
    weights: Weights,
    member_temperatures: Float[np.ndarray, " M"] | None = None,
) -> Float32[np.ndarray, "R K"]:
    """Return the log of the weighted mean probabilities of these examples, not calibrated.

    Members are pooled at `member_temperatures`, or raw if that is None.
    """
    support = np.flatnonzero(weights)
    chosen = np.stack([pool.log_probs[member][rows] for member in support.tolist()])
    if member_temperatures is not None:
        for place, member in enumerate(support):
            chosen[place] = apply_temperature(chosen[place], float(member_temperatures[member]))
    return weighted_vote(chosen, weights[support])
