"""Views of a pool without some folds, from one pass over its predictions.

Axes: M members, N examples, K classes, F folds. The NLL of a member at the sharpness s = 1/T is
mean_i [log Z_i(s) − s·x_iy], where x are its scores and log Z_i is their cumulant generating
function: its derivatives by s are mean, variance and third central moment of x_i under the
probabilities. One pass fits s₀ to all examples and sums these by fold. For any union of folds the
optimal s follows from a Taylor series around s₀, without reading the predictions again. Where s is
further than LIMIT from s₀, the temperature is fitted to the view itself.
"""

from collections.abc import Collection

import numpy as np
from jaxtyping import Float, Float32, Int

from common.errors import PoolError
from common.statistics.temperature import TEMPERATURES, platt_smoothing
from ensemble.selection.mixture import View, centred_scores, fit_scores, log_prob_true
from ensemble.selection.pool import Pool, refit_votes
from ensemble.selection.progress import Progress, silent

LIMIT = 0.05
"""Largest relative change of a temperature that is taken from the series. The temperature's error
is of the order of the cube of this change, and the NLL's error of the order of the square of the
temperature's."""

STEPS = 4
"""Newton steps on the series, from its centre."""


class FoldViews:
    """Views of a pool that leave folds out."""

    def __init__(
        self,
        pool: Pool,
        fold_of: Int[np.ndarray, " N"],
        folds: int,
        *,
        progress: Progress = silent,
    ) -> None:
        """Fit every member's temperature to all examples, and sum its moments by fold.

        Raises:
            PoolError: a member has predictions that are not finite.
        """
        self._pool, self._fold_of = pool, fold_of
        everything = np.arange(len(fold_of))
        refitted = refit_votes(pool, everything)
        members = len(pool.names)
        temperatures, nlls = np.empty((2, members))
        self._sums = np.empty((members, folds, 6))
        for member, log_probs in enumerate(refitted.log_probs):
            if not np.isfinite(log_probs).all():
                name = pool.names[member]
                raise PoolError(
                    f"member {name!r} has predictions that are not finite; leave it out"
                )
            scores = centred_scores(log_probs.T)
            temperatures[member] = fit_scores(scores, pool.labels)
            moments = _moments(scores, pool.labels, 1.0 / temperatures[member])
            for place, values in enumerate(moments):
                self._sums[member, :, place] = np.bincount(fold_of, values, minlength=folds)
            nlls[member] = -log_prob_true(scores, pool.labels, temperatures[member]).mean()
            progress("fitting temperatures", (member + 1) / members)
        self.whole = View(pool=refitted, rows=everything, temperatures=temperatures, nlls=nlls)

    def without(self, excluded: Collection[int]) -> View:
        """Return a view of the examples outside some folds."""
        if not excluded:
            return self.whole
        rows = np.flatnonzero(~np.isin(self._fold_of, list(excluded)))
        pool = refit_votes(self._pool, rows)
        temperatures, nlls, known = self._series(excluded, len(rows))
        known[list(pool.votes)] = False  # their smoothing depends on the view
        labels = pool.labels[rows]
        for member in np.flatnonzero(~known).tolist():
            start = float(self.whole.temperatures[member])
            scores = centred_scores(pool.log_probs[member][rows].T)
            temperatures[member] = fit_scores(scores, labels, start=start)
            nlls[member] = -log_prob_true(scores, labels, temperatures[member]).mean()
        return View(pool=pool, rows=rows, temperatures=temperatures, nlls=nlls)

    def _series(
        self, excluded: Collection[int], examples: int
    ) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"], np.ndarray]:
        """Return temperatures, NLLs, and which of them come from the series."""
        included = [fold for fold in range(self._sums.shape[1]) if fold not in set(excluded)]
        sums = self._sums[:, included].sum(axis=1) / examples
        log_total, mean, variance, third, true, every = sums.T
        smoothing, classes = platt_smoothing(examples), self._pool.log_probs.shape[2]
        others = (every - true) / max(1, classes - 1)
        target = (1 - smoothing) * true + smoothing * others
        centre = 1.0 / self.whole.temperatures
        step = np.zeros(len(centre))
        with np.errstate(all="ignore"):  # members that the series does not fit are fitted again
            for _ in range(STEPS):
                slope = mean + step * (variance + step * third / 2) - target
                step -= slope / (variance + step * third)
            sharpness = centre + step
            known = np.abs(step) <= LIMIT * centre
            known &= (sharpness > 1 / TEMPERATURES[1]) & (sharpness < 1 / TEMPERATURES[0])
            known &= (centre > 1.001 / TEMPERATURES[1]) & (centre < 0.999 / TEMPERATURES[0])
            log_totals = log_total + step * (mean + step * (variance / 2 + step * third / 6))
            return 1.0 / sharpness, log_totals - sharpness * true, known


def _moments(
    scores: Float32[np.ndarray, "K N"], labels: Int[np.ndarray, " N"], sharpness: float
) -> tuple[Float[np.ndarray, " N"], ...]:
    """Return log Z, its three derivatives, the true class's score, and the sum of all scores."""
    masses = np.exp(np.float32(sharpness) * scores)
    totals = masses.sum(axis=0, dtype=np.float64)
    raw = []
    for _ in range(3):
        masses *= scores
        raw.append(masses.sum(axis=0, dtype=np.float64) / totals)
    mean, square, cube = raw
    variance = square - mean**2
    third = cube - 3 * mean * square + 2 * mean**3
    true = scores[labels, np.arange(len(labels))].astype(np.float64)
    return np.log(totals), mean, variance, third, true, scores.sum(axis=0, dtype=np.float64)
