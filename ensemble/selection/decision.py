"""From a pool to the ensemble that ships: the mapping of selection.json.

Axes: M members, N examples, K classes. What ships is fitted on the whole holdout; every
figure about it is cross-fitted: the whole fit is repeated without a fold, its own inner folds
and its temperature included, and scored on that fold.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from common.errors import PoolError
from common.seeds import numpy_generator
from common.statistics.metrics import (
    accuracy,
    brier,
    ece,
    nll,
)
from ensemble.selection.comparison import SCORES, compare
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
from ensemble.selection.weights import gap

SCHEMA = 1

FEWEST_EXAMPLES = 2 * FOLDS
"""Two in every fold; with fewer, nothing about a fold can be estimated."""


def decide(pool: Pool, *, members: int = 5, seed: int = 0) -> dict[str, Any]:
    """Choose, weight and calibrate an ensemble of at most `members` distinct members.

    Returns the mapping of selection.json, ready for JSON: the ensemble with its temperature
    and certificates, three baselines of as many members, and for each its cross-fitted
    metrics. `best_single` and `uniform_top_k` rank members by NLL on holdout at each one's
    own temperature; `seeds_ensemble` takes the pool's first seeds and is None where there
    are too few. The same pool and seed give the same mapping.

    Raises:
        PoolError: members < 1, fewer than 10 examples, or predictions that are not finite.
    """
    _check(pool, members)
    whole = View.of(pool, np.arange(len(pool.labels)))
    ensemble = fit_ensemble(whole, members=members, seed=seed)
    fitted = {"ensemble": ensemble.mixture}
    fitted |= fit_baselines(whole, size=ensemble.mixture.size)
    held_out = _cross_fit(pool, members=members, size=ensemble.mixture.size, seed=seed)
    scores = {name: _metrics(log_probs, pool.labels) for name, log_probs in held_out.items()}
    single = _describe(pool, fitted["best_single"])
    return {
        "schema": SCHEMA,
        "split_id": pool.split_id,
        "examples": len(pool.labels),
        "classes": pool.log_probs.shape[2],
        "pool_size": len(pool.names),
        "most_members": members,
        **_describe_ensemble(whole, ensemble),
        "metrics": {"holdout": scores["ensemble"]},
        "best_single": {
            "name": single["members"][0]["name"],
            "temperature": single["temperature"],
            **scores["best_single"],
        },
        **{
            name: _describe(pool, fitted[name]) | scores[name] if name in fitted else None
            for name in ("uniform_top_k", "seeds_ensemble")
        },
        "comparisons": _comparisons(held_out, pool.labels, seed=seed),
        "diversity": _diversity(whole, ensemble.mixture),
        "compute": _compute(pool, fitted),
        "skipped": [{"name": left.name, "reason": left.reason} for left in pool.skipped],
    }


def _check(pool: Pool, members: int) -> None:
    if members < 1:
        raise PoolError(f"an ensemble needs at least 1 member, got members={members}")
    if len(pool.labels) < FEWEST_EXAMPLES:
        raise PoolError(
            f"a pool needs at least {FEWEST_EXAMPLES} labelled examples, two for each of "
            f"{FOLDS} folds; got {len(pool.labels)}"
        )
    for name, log_probs in zip(pool.names, pool.log_probs, strict=True):
        if not np.isfinite(log_probs).all():
            raise PoolError(f"member {name!r} has predictions that are not finite; leave it out")


def _cross_fit(
    pool: Pool, *, members: int, size: int, seed: int
) -> dict[str, Float32[np.ndarray, "N K"]]:
    """Log-probabilities of every example, from fits that have not seen its fold."""
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


def _metrics(
    log_probs: Float32[np.ndarray, "N K"], labels: Int64[np.ndarray, " N"]
) -> dict[str, float]:
    return {
        "accuracy": float(accuracy(log_probs, labels)),
        "nll": float(nll(log_probs, labels)),
        "brier": float(brier(log_probs, labels)),
        "ece": float(ece(log_probs, labels)),
    }


def _describe_ensemble(whole: View, ensemble: Ensemble) -> dict[str, Any]:
    weights = ensemble.mixture.weights
    support = np.flatnonzero(weights)
    return {
        **_describe(whole.pool, ensemble.mixture),
        "weighting": ensemble.weighting,
        "weighting_reason": ensemble.weighting_reason,
        "source": ensemble.source,
        "source_reason": ensemble.source_reason,
        "gap_support": gap(weights[support], whole.raw[:, support]),
        "gap_pool": gap(weights, whole.raw),
        "order": [whole.pool.names[member] for member in ensemble.order],
    }


def _describe(pool: Pool, mixture: Mixture) -> dict[str, Any]:
    """Members by falling weight, equal weights in the pool's order."""
    support = np.flatnonzero(mixture.weights)
    ranked = support[np.argsort(-mixture.weights[support], kind="stable")]
    return {
        "members": [
            {"name": pool.names[member], "weight": float(mixture.weights[member])}
            for member in ranked
        ],
        "temperature": float(mixture.temperature),
    }


def _comparisons(
    held_out: Mapping[str, Float32[np.ndarray, "N K"]],
    labels: Int64[np.ndarray, " N"],
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Ensemble less baseline, example by example, on the held-out folds."""
    return [
        compare("ensemble", baseline, metric, held_out, labels, seed=seed)
        for baseline in held_out
        if baseline != "ensemble"
        for metric in SCORES
    ]


def _diversity(whole: View, mixture: Mixture) -> dict[str, Any]:
    """How the ensemble's members differ; means over pairs, None for a single member.

    `best_addition` is the member of the pool to which a little weight would help most.
    """
    support = np.flatnonzero(mixture.weights)
    names = whole.pool.names
    log_probs = whole.pool.log_probs[support]
    predicted = log_probs.argmax(axis=2)
    pairs = np.triu_indices(len(support), k=1)
    values = marginal_values(whole.raw, mixture.weights)
    best = int(values.argmax())
    several = len(support) > 1
    return {
        "disagreement": float(disagreement(predicted)[pairs].mean()) if several else None,
        "double_fault": (
            float(double_fault(predicted, whole.labels)[pairs].mean()) if several else None
        ),
        "kohavi_wolpert": kohavi_wolpert(predicted, whole.labels),
        "pooling_gain": pooling_gain(whole.raw, mixture.weights),
        "near_duplicates": [
            [names[support[a]], names[support[b]]] for a, b in near_duplicates(log_probs)
        ],
        "best_addition": {"name": names[best], "marginal_value": float(values[best])},
    }


def _compute(pool: Pool, fitted: Mapping[str, Mixture]) -> dict[str, float | None]:
    """Training seconds behind each choice; None where a member's are not known."""
    seconds = {"pool": pool.seconds.sum()}
    seconds |= {name: pool.seconds[mixture.weights > 0].sum() for name, mixture in fitted.items()}
    return {
        f"{name}_seconds": float(value) if np.isfinite(value) else None
        for name, value in seconds.items()
    }
