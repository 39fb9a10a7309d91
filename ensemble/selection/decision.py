"""Select the ensemble that ships from a pool, with honest scores for it and its baselines.

Axes: M members, N examples, K classes. What ships is fitted on all of holdout. Every score is
cross-fitted: the whole fit, with its inner folds and its temperature, is repeated without a
fold and scored on that fold.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from common.errors import PoolError
from common.seeds import numpy_generator
from common.statistics.metrics import accuracy, brier, ece, nll
from ensemble.selection.comparison import SCORES, Comparison, compare
from ensemble.selection.diversity import (
    disagreement,
    double_fault,
    kohavi_wolpert,
    marginal_values,
    near_duplicates,
    pooling_gain,
)
from ensemble.selection.fitting import (
    FOLDS,
    Ensemble,
    fit_baselines,
    fit_ensemble,
    stratified_folds,
)
from ensemble.selection.mixture import Mixture, View
from ensemble.selection.pool import Pool, refit_votes
from ensemble.selection.selection import (
    Baseline,
    BestAddition,
    BestSingle,
    Diversity,
    Member,
    Scores,
    Selection,
    SelectionMetrics,
)
from ensemble.selection.weights import gap

MIN_EXAMPLES = 2 * FOLDS
"""Two in every fold, the fewest from which a fold's score can be estimated."""


def select_ensemble(pool: Pool, *, members: int = 5, seed: int = 0) -> Selection:
    """Select, weight and calibrate an ensemble of at most `members` distinct members.

    Three baselines of as many members are scored beside it. `best_single` and `uniform_top_k`
    rank members by NLL on holdout, each at its own temperature; `seeds_ensemble` takes the
    pool's first seeds and is None where there are too few. The same pool and seed give the
    same selection.

    Raises:
        PoolError: members < 1, fewer than 10 examples, or predictions that are not finite.
    """
    _check(pool, members)
    whole = View.of(pool, np.arange(len(pool.labels)))
    ensemble = fit_ensemble(whole, members=members, seed=seed)
    mixture = ensemble.mixture
    fitted = {"ensemble": mixture, **fit_baselines(whole, size=mixture.size)}
    held_out = _cross_fit(pool, members=members, size=mixture.size, seed=seed)
    scores = {name: _scores(log_probs, pool.labels) for name, log_probs in held_out.items()}

    def baseline(name: str) -> Baseline:
        return Baseline(**_members(pool, fitted[name]), **asdict(scores[name]))

    best = _members(pool, fitted["best_single"])
    return Selection(
        split_id=pool.split_id,
        examples=len(pool.labels),
        classes=pool.log_probs.shape[2],
        pool_size=len(pool.names),
        most_members=members,
        **_members(pool, mixture),
        **_certified(whole, ensemble),
        metrics=SelectionMetrics(holdout=scores["ensemble"]),
        best_single=BestSingle(
            name=best["members"][0].name,
            temperature=best["temperature"],
            **asdict(scores["best_single"]),
        ),
        uniform_top_k=baseline("uniform_top_k"),
        seeds_ensemble=baseline("seeds_ensemble") if "seeds_ensemble" in fitted else None,
        comparisons=_comparisons(held_out, pool.labels, seed=seed),
        diversity=_diversity(whole, mixture),
        compute=_compute(pool, fitted),
        skipped=pool.skipped,
    )


def _check(pool: Pool, members: int) -> None:
    if members < 1:
        raise PoolError(f"an ensemble needs at least 1 member, got members={members}")
    if len(pool.labels) < MIN_EXAMPLES:
        raise PoolError(
            f"a pool needs at least {MIN_EXAMPLES} labelled examples, two for each of "
            f"{FOLDS} folds; got {len(pool.labels)}"
        )
    for name, log_probs in zip(pool.names, pool.log_probs, strict=True):
        if not np.isfinite(log_probs).all():
            raise PoolError(f"member {name!r} has predictions that are not finite; leave it out")


def _cross_fit(
    pool: Pool, *, members: int, size: int, seed: int
) -> dict[str, Float32[np.ndarray, "N K"]]:
    """Return log-probabilities of every example, from fits that have not seen its fold."""
    held_out: dict[str, Float32[np.ndarray, "N K"]] = {}
    rng = numpy_generator(seed, "select", "folds")
    for rest, fold in stratified_folds(pool.labels, FOLDS, rng):
        refitted = refit_votes(pool, rest)
        seen = View.of(refitted, rest)
        fitted = {"ensemble": fit_ensemble(seen, members=members, seed=seed).mixture}
        fitted |= fit_baselines(seen, size=size)
        for name, mixture in fitted.items():
            log_probs = held_out.setdefault(name, np.empty(pool.log_probs.shape[1:], np.float32))
            log_probs[fold] = mixture.log_probs(refitted, fold)
    return held_out


def _scores(log_probs: Float32[np.ndarray, "N K"], labels: Int64[np.ndarray, " N"]) -> Scores:
    return Scores(
        accuracy=accuracy(log_probs, labels),
        nll=nll(log_probs, labels),
        brier=brier(log_probs, labels),
        ece=ece(log_probs, labels),
    )


def _members(pool: Pool, mixture: Mixture) -> dict[str, Any]:
    """Return the fields `members` and `temperature`; equal weights keep the pool's order."""
    support = np.flatnonzero(mixture.weights)
    ranked = support[np.argsort(-mixture.weights[support], kind="stable")]
    return {
        "members": tuple(
            Member(name=pool.names[member], weight=float(mixture.weights[member]))
            for member in ranked
        ),
        "temperature": float(mixture.temperature),
    }


def _certified(whole: View, ensemble: Ensemble) -> dict[str, Any]:
    """Return the fields that say how the members and weights were chosen."""
    weights = ensemble.mixture.weights
    support = np.flatnonzero(weights)
    return {
        "weighting": ensemble.weighting,
        "weighting_reason": ensemble.weighting_reason,
        "source": ensemble.source,
        "source_reason": ensemble.source_reason,
        "gap_support": gap(weights[support], whole.raw[:, support]),
        "gap_pool": gap(weights, whole.raw),
        "order": tuple(whole.pool.names[member] for member in ensemble.order),
    }


def _comparisons(
    held_out: Mapping[str, Float32[np.ndarray, "N K"]],
    labels: Int64[np.ndarray, " N"],
    *,
    seed: int,
) -> tuple[Comparison, ...]:
    """Compare the ensemble with each baseline on the held-out folds."""
    return tuple(
        compare("ensemble", baseline, metric, held_out, labels, seed=seed)
        for baseline in held_out
        if baseline != "ensemble"
        for metric in SCORES
    )


def _diversity(whole: View, mixture: Mixture) -> Diversity:
    support = np.flatnonzero(mixture.weights)
    names = whole.pool.names
    log_probs = whole.pool.log_probs[support]
    predicted = log_probs.argmax(axis=2)
    pairs = np.triu_indices(len(support), k=1)
    values = marginal_values(whole.raw, mixture.weights)
    best = int(values.argmax())
    several = len(support) > 1
    return Diversity(
        disagreement=float(disagreement(predicted)[pairs].mean()) if several else None,
        double_fault=(
            float(double_fault(predicted, whole.labels)[pairs].mean()) if several else None
        ),
        kohavi_wolpert=kohavi_wolpert(predicted, whole.labels),
        pooling_gain=pooling_gain(whole.raw, mixture.weights),
        near_duplicates=tuple(
            (names[support[a]], names[support[b]]) for a, b in near_duplicates(log_probs)
        ),
        best_addition=BestAddition(name=names[best], marginal_value=float(values[best])),
    )


def _compute(pool: Pool, fitted: Mapping[str, Mixture]) -> dict[str, float | None]:
    """Return the training seconds behind each choice; None where a member's are unknown."""
    seconds = {"pool": pool.seconds.sum()}
    seconds |= {name: pool.seconds[mixture.weights > 0].sum() for name, mixture in fitted.items()}
    return {
        f"{name}_seconds": float(value) if np.isfinite(value) else None
        for name, value in seconds.items()
    }
