"""The result of an ablation: the effect of each factor of a recipe on holdout.

Axes: S seeds, N examples, K classes. A factor's effect is the score of the full recipe minus
that of the recipe without it, from the same seed: positive is better for accuracy, negative
for NLL. Every training is scored on holdout after one temperature fitted on val.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.text.labels import NOT_DISTINGUISHABLE
from analysis.text.ledger import LOWER_IS_BETTER
from common.errors import RunError
from common.files import dump_csv, dump_json, write_bytes_atomically
from common.parsing import to_mapping
from common.statistics.metrics import accuracy, apply_temperature, nll
from common.statistics.paired_differences import holm, mean_difference
from ensemble.selection.pool import Pool
from ensemble.selection.run_pool import pool_from_run
from journal.events import ResultReported
from search.ablation.ablation import ALL, FULL, Ablation, trial_name, variant_name
from trainables.recipe import Recipe
from trainables.records import RunFolder, TrialRecord

SCHEMA = 1

METRICS = {"accuracy": accuracy, "nll": nll}
"""Compared scores, by name; each takes log-probabilities [N, K] and labels [N]."""
SIGNIFICANT = 0.05
"""A difference with a corrected p-value below this is distinguishable."""

HELPS, HARMS = "helps", "harms"

Scores = Mapping[str, Mapping[str, float]]
"""Scores by training and metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantScores:
    """One variant of the recipe, averaged over its seeds."""

    variant: str
    changes: Mapping[str, Any]
    """Recipe values that remove the factor; empty for the full recipe."""
    failed: int
    """Trainings that failed."""
    accuracy: float | None
    """None if all trainings failed, as for the other means."""
    nll: float | None
    train_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorEffect:
    """The effect of one factor by one metric: full recipe (a) minus without the factor (b)."""

    a: str = FULL
    b: str
    factor: str
    metric: str
    value: float | None
    """Mean over seeds; None if no seed has both trainings."""
    interval: tuple[float, float] | None
    """95%, not corrected for the number of factors; None with a single seed."""
    method: str = "paired-t"
    p_value: float | None
    p_holm: float | None = None
    """Corrected for the number of factors."""
    verdict: str = NOT_DISTINGUISHABLE
    seeds: int
    """Seeds in which both trainings completed."""
    by_seed: tuple[float, ...]

    @property
    def direction(self) -> str:
        """HELPS, HARMS or NOT_DISTINGUISHABLE."""
        if self.verdict == NOT_DISTINGUISHABLE or self.value is None:
            return NOT_DISTINGUISHABLE
        better = (self.value > 0) != (self.metric in LOWER_IS_BETTER)
        return HELPS if better else HARMS


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationResult:
    """The content of ablation.json."""

    schema: int = SCHEMA
    run: str
    split: str = "holdout"
    split_id: str
    examples: int
    """Number of holdout images."""
    epochs: int
    """Epochs of each training."""
    seeds: int
    """Seeds for which every variant has ended."""
    seeds_planned: int
    recipe: Mapping[str, Any]
    """The full recipe."""
    variants: tuple[VariantScores, ...]
    """The full recipe first."""
    differences: tuple[FactorEffect, ...]
    """Effects, ordered by metric, then by factor."""

    @property
    def by_factor(self) -> dict[str, dict[str, FactorEffect]]:
        """The effects by factor and metric, in the order of the ablation."""
        effects: dict[str, dict[str, FactorEffect]] = {}
        for effect in self.differences:
            effects.setdefault(effect.factor, {})[effect.metric] = effect
        return effects


def write_ablation(folder: RunFolder, ablation: Ablation, recipe: Recipe) -> AblationResult:
    """Compare the variants of `recipe` and write ablation.csv and ablation.json.

    Raises:
        RunError: no seed has all its variants, or a file of the run is damaged.
    """
    result = compare_variants(folder, ablation, recipe)
    write_bytes_atomically(folder.root / "ablation.csv", dump_csv(_rows(result)).encode())
    text = dump_json(to_mapping(result))
    write_bytes_atomically(folder.root / "ablation.json", text.encode())
    return result


def compare_variants(folder: RunFolder, ablation: Ablation, recipe: Recipe) -> AblationResult:
    """Compare the variants over the seeds for which every variant has ended.

    A failed training is counted and left out with its pair; the factor's effect is then the
    mean over the remaining seeds.

    Raises:
        RunError: no seed has all its variants, or a file of the run is damaged.
    """
    records = {record.trial: record for record in folder.records()}
    variants = [FULL, *map(variant_name, ablation.factors)]
    seeds = [
        seed
        for seed in range(ablation.seeds)
        if all(trial_name(variant, seed) in records for variant in variants)
    ]
    if not seeds:
        raise RunError(
            f"{folder.root}: no seed has all its {len(variants)} trainings yet, so nothing can be "
            "compared; continue with --resume, or raise the time budget"
        )
    pool = pool_from_run(folder)
    scores = _scores(pool, records)
    return AblationResult(
        run=folder.name,
        split_id=pool.split_id,
        examples=len(pool.labels),
        epochs=recipe.schedule.epochs,
        seeds=len(seeds),
        seeds_planned=ablation.seeds,
        recipe=recipe.to_mapping(),
        variants=tuple(
            _variant(variant, changes, seeds, scores, records)
            for variant, changes in zip(variants, [{}, *ablation.factors.values()], strict=True)
        ),
        differences=tuple(
            effect for metric in METRICS for effect in _effects(ablation, metric, seeds, scores)
        ),
    )


def ablation_event(result: AblationResult) -> ResultReported:
    """Return the journal's event for a result."""
    return ResultReported(
        kind="ablation",
        params={"seeds": result.seeds, "epochs": result.epochs},
        metrics={
            f"worth_{effect.factor}_{effect.metric}": effect.value
            for effect in result.differences
            if effect.value is not None
        },
    )


def factor_label(factor: str) -> str:
    """Return a factor's name, or `all of them` for the bare variant."""
    return "all of them" if factor == ALL else factor


def _scores(pool: Pool, records: Mapping[str, TrialRecord]) -> Scores:
    """Score every training that completed."""
    scores = {}
    for name, log_probs in zip(pool.names, pool.log_probs, strict=True):
        scaled = apply_temperature(log_probs, records[name].metrics.get("temperature", 1.0))
        scores[name] = {metric: score(scaled, pool.labels) for metric, score in METRICS.items()}
    return scores


def _variant(
    variant: str,
    changes: Mapping[str, Any],
    seeds: Sequence[int],
    scores: Scores,
    records: Mapping[str, TrialRecord],
) -> VariantScores:
    names = [trial_name(variant, seed) for seed in seeds]
    scored = [name for name in names if name in scores]

    def mean(values: Sequence[float]) -> float | None:
        return float(np.mean(values)) if values else None

    return VariantScores(
        variant=variant,
        changes=dict(changes),
        failed=len(names) - len(scored),
        accuracy=mean([scores[name]["accuracy"] for name in scored]),
        nll=mean([scores[name]["nll"] for name in scored]),
        train_seconds=mean([records[name].seconds for name in scored]),
    )


def _effects(
    ablation: Ablation, metric: str, seeds: Sequence[int], scores: Scores
) -> list[FactorEffect]:
    """Return every factor's effect by one metric, with p-values corrected for their number."""
    effects = [_effect(factor, metric, seeds, scores) for factor in ablation.factors]
    p_values = [effect.p_value for effect in effects if effect.p_value is not None]
    corrected = iter(holm(p_values))
    return [
        effect if effect.p_value is None else _corrected(effect, next(corrected))
        for effect in effects
    ]


def _corrected(effect: FactorEffect, p_holm: float) -> FactorEffect:
    verdict = "distinguishable" if p_holm < SIGNIFICANT else NOT_DISTINGUISHABLE
    return replace(effect, p_holm=p_holm, verdict=verdict)


def _effect(factor: str, metric: str, seeds: Sequence[int], scores: Scores) -> FactorEffect:
    variant = variant_name(factor)
    pairs = [
        (scores[trial_name(FULL, seed)][metric], scores[trial_name(variant, seed)][metric])
        for seed in seeds
        if {trial_name(FULL, seed), trial_name(variant, seed)} <= set(scores)
    ]
    a, b = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    mean = mean_difference(a, b) if pairs else None
    interval = None if mean is None else mean.interval
    return FactorEffect(
        b=variant,
        factor=factor,
        metric=metric,
        value=None if mean is None else mean.value,
        interval=None if interval is None else (interval.low, interval.high),
        p_value=None if mean is None else mean.p_value,
        seeds=len(pairs),
        by_seed=tuple((a - b).tolist()),
    )


def _rows(result: AblationResult) -> list[dict[str, Any]]:
    """Return the rows of the CSV, one per factor and metric."""
    variants = {variant.variant: variant for variant in result.variants}
    return [
        {
            "factor": effect.factor,
            "metric": metric,
            "full": getattr(variants[FULL], metric),
            "without": getattr(variants[effect.b], metric),
            "worth": effect.value,
            "worth_interval": effect.interval or [None, None],
            "p_value": effect.p_value,
            "p_holm": effect.p_holm,
            "effect": effect.direction,
            "seeds": effect.seeds,
            "failed": variants[effect.b].failed,
        }
        for metrics in result.by_factor.values()
        for metric, effect in metrics.items()
    ]
