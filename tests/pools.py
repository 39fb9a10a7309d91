"""Synthetic pools, predictions and costs for the tests of selection, gates and ledger."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ensemble.ledger.predictions import STAGES, Predictions, StageCost
from ensemble.selection.pool import Pool

Array = np.ndarray[Any, Any]

SKILLS = {
    "student_int8": 1.9, "ensemble": 2.4, "seeds_ensemble": 2.2, "best_single": 1.7,
    "student_plain": 1.5, "uniform_top_k": 2.3, "student_fp32": 2.0, "best_single_int8": 1.68,
    "student_plain_int8": 1.48, "soft_vote": 2.38, "weighted_vote": 2.39, "hard_vote": 2.2,
}  # fmt: skip
"""Skill of each of the ledger's stages in `stage_predictions`."""


def synthetic_log_probs(
    rng: np.random.Generator,
    labels: Array,
    *,
    skills: Sequence[float],
    sharpness: Sequence[float] | None = None,
    classes: int = 3,
    common: float = 0.6,
) -> Array:
    """Return log-probabilities float32 [M, N, K] of members with correlated errors.

    `skills` and `sharpness` have one value per member. `common` is the share of the noise
    variance that all members share.
    """
    shared = rng.normal(size=(len(labels), classes))
    logits = np.empty((len(skills), len(labels), classes))
    for member, skill in enumerate(skills):
        noise = rng.normal(size=shared.shape) * np.sqrt(1 - common) + shared * np.sqrt(common)
        noise[np.arange(len(labels)), labels] += skill
        logits[member] = noise * (1.0 if sharpness is None else sharpness[member])
    logits -= logits.max(axis=2, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=2, keepdims=True)), dtype=np.float32)


def synthetic_pool(
    seed: int = 0,
    *,
    skills: Sequence[float] = (1.0, 1.5, 2.0, 1.2, 1.8, 1.6),
    sharpness: Sequence[float] | None = None,
    examples: int = 120,
    classes: int = 3,
    common: float = 0.6,
    seeds: int = 0,
) -> Pool:
    """Return a pool whose last `seeds` members are seeds of the best configuration."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(examples) % classes)
    members = len(skills)
    return Pool(
        names=tuple(
            f"s{m - members + seeds:02d}" if m >= members - seeds else f"t{m:04d}"
            for m in range(members)
        ),
        log_probs=synthetic_log_probs(
            rng, labels, skills=skills, sharpness=sharpness, classes=classes, common=common
        ),
        labels=labels,
        split_id="synthetic",
        seconds=np.full(members, 2.0),
        kinds=tuple("seed" if m >= members - seeds else "search" for m in range(members)),
    )


def stage_predictions(seed: int, examples: int = 150) -> Predictions:
    """Return predictions of every stage of the ledger on three equally frequent classes."""
    rng = np.random.default_rng(seed)
    labels = np.arange(examples) % 3
    log_probs = synthetic_log_probs(rng, labels, skills=list(SKILLS.values()))
    return Predictions(labels=labels, stages=dict(zip(SKILLS, log_probs, strict=True)))


def stage_costs() -> dict[str, StageCost]:
    """Return the costs of every stage of the ledger; int8 is smaller and faster than the others."""
    others = StageCost(
        params=1000, bytes=4000, latency_ms_batch1=0.8, images_per_second=2000.0,
        train_seconds=12.5,
    )  # fmt: skip
    int8 = replace(others, bytes=1500, latency_ms_batch1=0.5)
    return {stage: int8 if stage.endswith("_int8") else others for stage in STAGES}
