"""Select the ensemble from a pool, with honest scores for it and its baselines.

Axes: M members, N examples, K classes. The ensemble is fitted on all of holdout. Every score is
cross-fitted: the whole choice, with its folds and its temperature, is repeated with one fold left
out and scored on that fold.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64

from common.errors import PoolError
from common.statistics.metrics import brier, correct, ece, nll
from ensemble.selection.candidates import Candidate, Request
from ensemble.selection.certificate import certify
from ensemble.selection.choice import paired
from ensemble.selection.comparison import SCORES, Comparison, compare
from ensemble.selection.diversity import (
    disagreement,
    double_fault,
    kohavi_wolpert,
    marginal_values,
    near_duplicates,
    pooling_gain,
)
from ensemble.selection.fitting import FOLDS, CrossFit, Ensemble, fit_baselines
from ensemble.selection.mixture import Mixture, View
from ensemble.selection.pool import Pool
from ensemble.selection.progress import Progress, silent
from ensemble.selection.selection import (
    Baseline,
    BestAddition,
    BestSingle,
    CandidateScore,
    Diversity,
    Member,
    Scores,
    Selection,
    SelectionMetrics,
)
from ensemble.selection.teacher_file import predictions_digest
from ensemble.selection.weights import gap

MIN_EXAMPLES = 2 * FOLDS
"""Two in every fold, the fewest from which a fold's score can be estimated."""


def select_ensemble(
    pool: Pool,
    request: Request | None = None,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Selection:
    """Select, weight and calibrate an ensemble, the best that `request` allows.

    Three baselines of as many members are scored beside it. `best_single` and `uniform_top_k`
    rank members by NLL on holdout, each at its own temperature; `seeds_ensemble` takes the
    pool's first seeds and is None if there are too few. The same pool, request and seed give the
    same selection.

    Raises:
        PoolError: fewer than 10 examples, predictions that are not finite, or no member that the
            request allows.
    """
    request = request or Request()
    _check(pool)
    crossed = CrossFit(pool, request, seed, progress=progress)
    ensemble = crossed.ensemble()
    whole, mixture = ensemble.view, ensemble.mixture
    support = np.flatnonzero(mixture.weights).tolist()
    fitted = {"ensemble": mixture, **fit_baselines(whole, size=mixture.size)}
    held_out = _cross_fit(crossed, size=mixture.size)
    progress("certifying the weights", 0.0)
    scores = {name: _scores(log_probs, pool.labels) for name, log_probs in held_out.items()}

    def baseline(name: str) -> Baseline:
        return Baseline(**_members(pool, fitted[name]), **asdict(scores[name]))

    best = _members(pool, fitted["best_single"])
    return Selection(
        split_id=pool.split_id,
        examples=len(pool.labels),
        classes=pool.log_probs.shape[2],
        pool_size=len(pool.names),
        most_members=request.members,
        **_members(pool, mixture),
        **_chosen(ensemble),
        candidates=_candidates(crossed, ensemble),
        request=request,
        gap_support=gap(mixture.weights[support], whole.prob_true("raw", support)),
        gap_pool=gap(mixture.weights, whole.prob_true("raw")),
        certificate=certify(whole, mixture),
        predictions={
            pool.names[member]: predictions_digest(pool.log_probs[member]) for member in support
        },
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


def _check(pool: Pool) -> None:
    if len(pool.labels) < MIN_EXAMPLES:
        raise PoolError(
            f"a pool needs at least {MIN_EXAMPLES} labelled examples, two for each of "
            f"{FOLDS} folds; got {len(pool.labels)}"
        )


def _cross_fit(crossed: CrossFit, *, size: int) -> dict[str, Float32[np.ndarray, "N K"]]:
    """Return log-probabilities of every example, from choices that have not seen its fold."""
    held_out: dict[str, Float32[np.ndarray, "N K"]] = {}
    for fold, rows in crossed.folds():
        chosen = crossed.ensemble(without=fold)
        seen = chosen.view
        for name, mixture in {
            "ensemble": chosen.mixture, **fit_baselines(seen, size=size)
        }.items():  # fmt: skip
            shape = seen.pool.log_probs.shape[1:]
            log_probs = held_out.setdefault(name, np.empty(shape, np.float32))
            log_probs[rows] = mixture.log_probs(seen.pool, rows)
    return held_out


def _scores(log_probs: Float32[np.ndarray, "N K"], labels: Int64[np.ndarray, " N"]) -> Scores:
    return Scores(
        accuracy=float(correct(log_probs, labels).mean()),
        nll=nll(log_probs, labels),
        brier=brier(log_probs, labels),
        ece=ece(log_probs, labels),
    )


def _members(pool: Pool, mixture: Mixture) -> dict[str, Any]:
    """Return the fields `members` and `temperature`; equal weights keep the pool's order."""
    support = np.flatnonzero(mixture.weights)
    ranked = support[np.argsort(-mixture.weights[support], kind="stable")]
    own = mixture.member_temperatures
    return {
        "members": tuple(
            Member(
                name=pool.names[member],
                weight=float(mixture.weights[member]),
                temperature=None if own is None else float(own[member]),
            )
            for member in ranked
        ),
        "temperature": float(mixture.temperature),
    }


def _chosen(ensemble: Ensemble) -> dict[str, Any]:
    """Return the fields that say which candidate was chosen, and why."""
    candidate, scores = ensemble.candidate, ensemble.scores
    names = ensemble.view.pool.names
    best = min(scores, key=lambda score: score.nll).candidate
    tied = sum(score.tied for score in scores)
    return {
        "candidate": candidate.name,
        "candidate_reason": (
            f"{tied} of {len(scores)} candidates tie with the lowest out-of-fold NLL "
            f"({best.name}); {candidate.name} comes first in the order of preference"
        ),
        "pooling": candidate.pooling,
        "pooling_reason": _gain(
            ensemble, lambda c: c.pooling == "calibrated", absent="only one kind is possible"
        ),
        "weighting": candidate.weighting,
        "weighting_reason": _gain(
            ensemble, lambda c: c.weighting == "learned", absent="as requested"
        ),
        "source": _source(ensemble),
        "source_reason": _gain(
            ensemble, lambda c: c.way != "seeds", absent="seeds alone were not a candidate"
        ),
        "order": tuple(names[member] for member in ensemble.order),
    }


def _source(ensemble: Ensemble) -> Literal["search", "seeds", "all"]:
    kinds = {
        ensemble.view.pool.kinds[member] == "seed"
        for member in np.flatnonzero(ensemble.mixture.weights)
    }
    return "all" if len(kinds) > 1 else "seeds" if True in kinds else "search"


def _gain(ensemble: Ensemble, belongs: Callable[[Candidate], bool], *, absent: str) -> str:
    """Compare the best candidate of a kind with the best one of the other kind."""
    losses = ensemble.losses
    sides = [[c for c in losses if belongs(c)], [c for c in losses if not belongs(c)]]
    if not all(sides):
        return absent
    a, b = (min(side, key=lambda c: float(losses[c].mean())) for side in sides)
    gain, error = paired(losses[b], losses[a])
    return (
        f"out of fold, {a.name} gains {gain:+.5f} nats over {b.name} (standard error {error:.5f})"
    )


def _candidates(crossed: CrossFit, ensemble: Ensemble) -> tuple[CandidateScore, ...]:
    return tuple(
        CandidateScore(
            name=score.candidate.name,
            members=crossed.size_of(score.candidate),
            nll=score.nll,
            excess=score.excess,
            standard_error=score.standard_error,
            tied=score.tied,
        )
        for score in ensemble.scores
    )


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
    log_probs = whole.pool.stack(support.tolist())
    predicted = log_probs.argmax(axis=2)
    pairs = np.triu_indices(len(support), k=1)
    prob_true = whole.prob_true(mixture.pooling)
    values = marginal_values(prob_true, mixture.weights)
    best = int(values.argmax())
    several = len(support) > 1
    return Diversity(
        disagreement=float(disagreement(predicted)[pairs].mean()) if several else None,
        double_fault=(
            float(double_fault(predicted, whole.labels)[pairs].mean()) if several else None
        ),
        kohavi_wolpert=kohavi_wolpert(predicted, whole.labels),
        pooling_gain=pooling_gain(prob_true, mixture.weights),
        near_duplicates=tuple(
            (names[support[a]], names[support[b]]) for a, b in near_duplicates(log_probs)
        ),
        best_addition=BestAddition(name=names[best], marginal_value=float(values[best])),
    )


def _compute(pool: Pool, fitted: Mapping[str, Mixture]) -> dict[str, float | None]:
    """Return the training seconds behind each choice; None if a member's are unknown."""
    seconds = {"pool": pool.seconds.sum()}
    seconds |= {name: pool.seconds[mixture.weights > 0].sum() for name, mixture in fitted.items()}
    return {
        f"{name}_seconds": float(value) if np.isfinite(value) else None
        for name, value in seconds.items()
    }
