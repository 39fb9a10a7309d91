"""Synthetic pools for the tests of selection, decision and ledger."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble.selection.pool import Pool

Array = np.ndarray[Any, Any]


def synthetic_log_probs(
    rng: np.random.Generator,
    labels: Array,
    *,
    skills: Sequence[float],
    sharpness: Sequence[float] | None = None,
    classes: int = 3,
    common: float = 0.6,
) -> Array:
    """float32 [M, N, K]: members that err together, of given skill and sharpness.

    `common` is the share of the members' noise variance that they have in common.
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
    """A pool of which the last `seeds` members are seeds of the best configuration."""
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
