"""Fit an ensemble and its baselines to some examples of a pool, and cross-fit the whole choice.

Axes: M members, N examples of the pool, R rows (examples in view), K classes.

Members are compared and selected, each at its own temperature (Ashukha et al., 2020): a trial with
label smoothing or MixUp is underconfident, and on raw probabilities greedy selection prefers the
sharpest members to the best. Measured on 29 small nets (CIFAR-10 as JPEG, 16×16, 8,000 training
images; 5 draws of the holdout each): five members selected on raw probabilities have 0.018 ± 0.007,
0.009 ± 0.003 and 0.005 ± 0.003 nats more test NLL than the five best singles, at 400, 1,500 and
5,000 holdout examples (mean ± standard error over the draws); selected at their own temperatures,
they are not distinguishable from the best singles.

The choice among candidates is made out of fold (see `ensemble.selection.choice`), and the score of
the whole procedure is cross-fitted: for each fold, choice and fit are repeated without it. Both use
the same five folds, and the fit without folds f and g serves the choices of both f and g. So 16
fits suffice instead of 36: one on everything, 5 without one fold, 10 without two. The choice that
is scored on fold f has seen only the other four.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from common.seeds import numpy_generator
from ensemble.selection.candidates import Candidate, Fit, Request, candidates_of, uniform_weights
from ensemble.selection.choice import Losses, Score, choose, score_candidates
from ensemble.selection.fold_views import FoldViews
from ensemble.selection.mixture import Mixture, Rows, View
from ensemble.selection.orders import Likeness
from ensemble.selection.pool import Pool
from ensemble.selection.progress import Progress, silent

FOLDS = 5

LOSSES = FOLDS + FOLDS * (FOLDS - 1) // 2
"""Fits whose candidates are scored: without one fold, and without two."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ensemble:
    """The chosen ensemble, and the evidence for the choice."""

    view: View
    """The examples that it was chosen and fitted on."""
    candidate: Candidate
    mixture: Mixture
    order: tuple[int, ...]
    """Members in the order in which they were chosen."""
    losses: Losses
    """Every candidate's NLL per example out of fold."""
    scores: tuple[Score, ...]
    """The candidates in their order of preference."""


@dataclass(slots=True, eq=False)
class CrossFit:
    """The choice of an ensemble, with and without each fold; each fit is made at most once."""

    pool: Pool
    request: Request
    seed: int
    progress: Progress = field(default=silent, kw_only=True)
    fold_of: Int[np.ndarray, " N"] = field(init=False)
    candidates: tuple[Candidate, ...] = field(init=False)
    _views: FoldViews = field(init=False)
    _likeness: Likeness = field(init=False)
    _fits: dict[frozenset[int], Fit] = field(default_factory=dict)
    _losses: dict[tuple[frozenset[int], int], Losses] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Draw the folds.

        Raises:
            PoolError: the pool has no member that the request allows.
        """
        self.fold_of = assign_folds(
            self.pool.labels, FOLDS, numpy_generator(self.seed, "select", "folds")
        )
        self.candidates = candidates_of(self.request, self.pool)
        self._likeness = Likeness(self.pool)
        self._views = FoldViews(self.pool, self.fold_of, FOLDS, progress=self.progress)

    def ensemble(self, without: int | None = None) -> Ensemble:
        """Choose and fit an ensemble on all examples, or on those outside one fold."""
        excluded = frozenset() if without is None else frozenset({without})
        fit = self._fit(excluded)
        losses = self._out_of_fold(excluded)
        scores = score_candidates(losses)
        candidate = choose(scores)
        return Ensemble(
            view=fit.view,
            candidate=candidate,
            mixture=Mixture.fit(fit.view, fit.weights(candidate), candidate.pooling),
            order=fit.order(candidate.way)[: candidate.size],
            losses=losses,
            scores=scores,
        )

    def size_of(self, candidate: Candidate) -> int:
        """Return the number of members that a candidate has when fitted to all examples."""
        return int(np.count_nonzero(self._fit(frozenset()).weights(candidate)))

    def folds(self) -> Iterator[tuple[int, Rows]]:
        """Yield the number of each fold, and its examples."""
        for fold in range(FOLDS):
            yield fold, np.flatnonzero(self.fold_of == fold)

    def _out_of_fold(self, excluded: frozenset[int]) -> Losses:
        """Return each candidate's losses on the folds not excluded, each from fits without it."""
        inside = ~np.isin(self.fold_of, list(excluded))
        losses = {c: np.empty(len(self.fold_of)) for c in self.candidates}
        for fold, rows in self.folds():
            if fold not in excluded:
                for candidate, values in self._fold_losses(excluded | {fold}, fold).items():
                    losses[candidate][rows] = values
        return {candidate: values[inside] for candidate, values in losses.items()}

    def _fold_losses(self, excluded: frozenset[int], fold: int) -> Losses:
        if (excluded, fold) not in self._losses:
            rows = np.flatnonzero(np.isin(self.fold_of, list(excluded)))
            losses = self._fit(excluded).losses(self.candidates, rows)
            done = 1 + len({key for key, _ in self._losses})
            self.progress("comparing candidates out of fold", done / LOSSES)
            for other in excluded:
                here = self.fold_of[rows] == other
                self._losses[excluded, other] = {c: v[here] for c, v in losses.items()}
        return self._losses[excluded, fold]

    def _fit(self, excluded: frozenset[int]) -> Fit:
        if excluded not in self._fits:
            self._fits[excluded] = Fit(
                view=self._views.without(excluded),
                request=self.request,
                likeness=self._likeness,
                seed=self.seed,
            )
        return self._fits[excluded]


def fit_baselines(view: View, *, size: int) -> dict[str, Mixture]:
    """Fit `best_single`, and uniform ensembles of `size`: `uniform_top_k` and `seeds_ensemble`.

    Single members are ranked by NLL at their own temperatures. `seeds_ensemble` takes the
    first seeds in the pool's order, and is absent if there are fewer than `size`. All are pooled
    raw.
    """
    ranked = view.ranked()
    chosen = {"best_single": ranked[:1], "uniform_top_k": ranked[:size]}
    seeds = np.flatnonzero([kind == "seed" for kind in view.pool.kinds])
    if len(seeds) >= size:
        chosen["seeds_ensemble"] = seeds[:size]
    return {
        name: Mixture.fit(view, uniform_weights(indices.tolist(), len(ranked)))
        for name, indices in chosen.items()
    }


def assign_folds(
    labels: Int[np.ndarray, " N"], folds: int, rng: np.random.Generator
) -> Int[np.ndarray, " N"]:
    """Return the fold of each example, with every class spread evenly over the folds."""
    shuffled = rng.permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold_of = np.empty(len(labels), dtype=np.int64)
    fold_of[ordered] = np.arange(len(labels)) % folds
    return fold_of
