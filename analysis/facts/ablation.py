"""What each factor of a recipe is worth, on holdout: its ablation's result.

Axes: S seeds, N examples, K classes. Worth is the score of the full recipe less that of the
recipe without the factor, from the same seed: of accuracy more is better, of NLL less. Every
training has one temperature, fitted on val, and is scored on holdout.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.text.labels import NOT_DISTINGUISHABLE
from analysis.text.ledger import LOWER_IS_BETTER
from common.errors import RunError
from common.files import dump_csv, dump_json, write_bytes_atomically
from common.statistics.metrics import accuracy, apply_temperature, nll
from common.statistics.paired_differences import holm, mean_difference
from ensemble.selection.pool import Pool
from ensemble.selection.run_pool import pool_from_run
from search.ablation.ablation import ALL, FULL, Ablation, trial_of, variant_of
from trainables.recipe import Recipe
from trainables.records import RunFolder, TrialRecord

SCHEMA = 1

SCORES = {"accuracy": accuracy, "nll": nll}
"""What is compared: each gives one number for log-probabilities [N, K] and labels [N]."""

SURE = 0.05
"""A corrected p-value below it calls a difference distinguishable."""

HELPS, HARMS = "helps", "harms"

Result = Mapping[str, Any]
Scores = Mapping[str, Mapping[str, float]]


def write_ablation(folder: RunFolder, ablation: Ablation, recipe: Recipe) -> dict[str, Any]:
    """Compare the variants of `recipe`, the full one; write ablation.csv and ablation.json.

    Raises:
        RunError: no seed has all its variants, or a file of the run is damaged.
    """
    result = compare_variants(folder, ablation, recipe)
    write_bytes_atomically(folder.root / "ablation.csv", dump_csv(_rows(result)).encode())
    write_bytes_atomically(folder.root / "ablation.json", dump_json(result).encode())
    return result


def compare_variants(folder: RunFolder, ablation: Ablation, recipe: Recipe) -> dict[str, Any]:
    """The mapping of ablation.json, from the seeds of which every variant has ended.

    A training that failed is left out of its factor's comparison together with its pair, and
    counted: what is said of a factor is then said of the seeds that its absence survives.
    """
    records = {record.trial: record for record in folder.records()}
    variants = [FULL, *map(variant_of, ablation.factors)]
    seeds = [
        seed
        for seed in range(ablation.seeds)
        if all(trial_of(variant, seed) in records for variant in variants)
    ]
    if not seeds:
        raise RunError(
            f"{folder.root}: no seed has all its {len(variants)} trainings yet, so nothing can be "
            "compared; go on with --resume, or give it more time"
        )
    pool = pool_from_run(folder)
    scores = _scores(pool, records)
    return {
        "schema": SCHEMA,
        "run": folder.name,
        "split": "holdout",
        "split_id": pool.split_id,
        "examples": len(pool.labels),
        "epochs": recipe.schedule.epochs,
        "seeds": len(seeds),
        "seeds_planned": ablation.seeds,
        "recipe": recipe.to_mapping(),
        "variants": [
            _variant(variant, changes, seeds, scores, records)
            for variant, changes in zip(variants, [{}, *ablation.factors.values()], strict=True)
        ],
        "differences": [
            difference
            for metric in SCORES
            for difference in _differences(ablation, metric, seeds, scores)
        ],
    }


def ablation_event(result: Result) -> dict[str, Any]:
    """The journal's event that tells of a result."""
    return {
        "event": "result",
        "kind": "ablation",
        "params": {"seeds": result["seeds"], "epochs": result["epochs"]},
        "metrics": {
            f"worth_{item['factor']}_{item['metric']}": item["value"]
            for item in result["differences"]
            if item["value"] is not None
        },
        "folder": None,
    }


def effect(difference: Result) -> str:
    """Whether a factor helps, harms, or is not distinguishable from its absence."""
    if difference["verdict"] == NOT_DISTINGUISHABLE:
        return NOT_DISTINGUISHABLE
    better = (difference["value"] > 0) != (difference["metric"] in LOWER_IS_BETTER)
    return HELPS if better else HARMS


def factor_label(factor: str) -> str:
    """A factor's name, as a command takes it, or what stands for all."""
    return "all of them" if factor == ALL else factor


def by_factor(result: Result) -> dict[str, dict[str, Result]]:
    """The differences by factor and metric, in the order of the ablation."""
    found: dict[str, dict[str, Result]] = {}
    for difference in result["differences"]:
        found.setdefault(difference["factor"], {})[difference["metric"]] = difference
    return found


def _scores(pool: Pool, records: Mapping[str, TrialRecord]) -> Scores:
    """Of every training that completed, by its name."""
    found = {}
    for name, log_probs in zip(pool.names, pool.log_probs, strict=True):
        told = apply_temperature(log_probs, records[name].metrics.get("temperature", 1.0))
        found[name] = {metric: score(told, pool.labels) for metric, score in SCORES.items()}
    return found


def _variant(
    variant: str,
    changes: Mapping[str, Any],
    seeds: Sequence[int],
    scores: Scores,
    records: Mapping[str, TrialRecord],
) -> dict[str, Any]:
    names = [trial_of(variant, seed) for seed in seeds]
    scored = [name for name in names if name in scores]

    def mean(values: Sequence[float]) -> float | None:
        return float(np.mean(values)) if values else None

    return {
        "variant": variant,
        "changes": dict(changes),
        "failed": len(names) - len(scored),
        **{metric: mean([scores[name][metric] for name in scored]) for metric in SCORES},
        "train_seconds": mean([records[name].seconds for name in scored]),
    }


def _differences(
    ablation: Ablation, metric: str, seeds: Sequence[int], scores: Scores
) -> list[dict[str, Any]]:
    """What every factor is worth by one metric, corrected for their number."""
    found = [_difference(factor, metric, seeds, scores) for factor in ablation.factors]
    tested = [item for item in found if item["p_value"] is not None]
    corrected = holm([item["p_value"] for item in tested])
    for item, p_holm in zip(tested, corrected, strict=True):
        item["p_holm"] = p_holm
        item["verdict"] = "distinguishable" if p_holm < SURE else NOT_DISTINGUISHABLE
    return found


def _difference(factor: str, metric: str, seeds: Sequence[int], scores: Scores) -> dict[str, Any]:
    variant = variant_of(factor)
    pairs = [
        (scores[trial_of(FULL, seed)][metric], scores[trial_of(variant, seed)][metric])
        for seed in seeds
        if {trial_of(FULL, seed), trial_of(variant, seed)} <= set(scores)
    ]
    a, b = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    found = mean_difference(a, b) if pairs else None
    interval = None if found is None else found.interval
    return {
        "a": FULL,
        "b": variant,
        "factor": factor,
        "metric": metric,
        "value": None if found is None else found.value,
        "interval": None if interval is None else [interval.low, interval.high],
        "method": "paired-t",
        "p_value": None if found is None else found.p_value,
        "p_holm": None,
        "verdict": NOT_DISTINGUISHABLE,
        "seeds": len(pairs),
        "by_seed": (a - b).tolist(),
    }


def _rows(result: Result) -> list[dict[str, Any]]:
    """One a factor and metric, for the CSV."""
    variants = {variant["variant"]: variant for variant in result["variants"]}
    return [
        {
            "factor": item["factor"],
            "metric": metric,
            "full": variants[FULL][metric],
            "without": variants[item["b"]][metric],
            "worth": item["value"],
            "worth_interval": item["interval"] or [None, None],
            "p_value": item["p_value"],
            "p_holm": item["p_holm"],
            "effect": effect(item),
            "seeds": item["seeds"],
            "failed": variants[item["b"]]["failed"],
        }
        for metrics in by_factor(result).values()
        for metric, item in metrics.items()
    ]
