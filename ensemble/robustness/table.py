"""Compute the ledger's figures on corrupted images from arrays of predictions.

Axes: N images, K classes. Predictions are log-probabilities [N, K], each stage's after its own
temperature.
"""

import numpy as np

from common.seeds import derive_seed, numpy_generator
from common.statistics.intervals import proportion_interval
from common.statistics.metrics import accuracy, correct, ece, ece_null, nll
from ensemble.ledger.predictions import FILES, STAGES, Labels, LogProbs, Predictions
from ensemble.ledger.robustness import ALL, CLEAN, CorruptedRow
from ensemble.robustness.corruptions import FAMILIES
from ensemble.selection.comparison import SCORES, Comparison, compare

PAIRS = (
    ("ensemble", "best_single"),
    *((stage, "ensemble") for stage in FILES if stage != "best_single"),
)
"""Stages that are compared on corrupted images: the first minus the second."""


def corrupted_rows(
    corrupted: Predictions, clean: Predictions, families: np.ndarray, *, seed: int
) -> tuple[CorruptedRow, ...]:
    """Return a row per stage and family, and one per stage for clean and for all corrupted images.

    `families` names the family of each image's corruption; `clean` holds the predictions for the
    same images before corruption.
    """
    corrupted.check()
    rows = []
    for stage in (stage for stage in STAGES if stage in corrupted.stages):
        after = corrupted.stages[stage]
        parts = {CLEAN: (clean.stages[stage], clean.labels)} if stage in clean.stages else {}
        for family in FAMILIES:
            chosen = families == family
            parts[family] = after[chosen], corrupted.labels[chosen]
        parts[ALL] = after, corrupted.labels
        rows += [
            _row(stage, family, *part, seed=seed) for family, part in parts.items() if len(part[1])
        ]
    return tuple(rows)


def corrupted_differences(corrupted: Predictions, *, seed: int) -> tuple[Comparison, ...]:
    """Compare the PAIRS of stages on all corrupted images, in accuracy and NLL."""
    return tuple(
        compare(
            a, b, metric, corrupted.stages, corrupted.labels, seed=derive_seed(seed, "corrupted")
        )
        for a, b in PAIRS
        if a in corrupted.stages and b in corrupted.stages
        for metric in SCORES
    )


def _row(
    stage: str, family: str, log_probs: LogProbs, labels: Labels, *, seed: int
) -> CorruptedRow:
    right = correct(log_probs, labels)
    interval = proportion_interval(int(right.sum()), len(right))
    return CorruptedRow(
        stage=stage,
        family=family,
        images=len(labels),
        accuracy=accuracy(log_probs, labels),
        accuracy_interval=(interval.low, interval.high),
        nll=nll(log_probs, labels),
        ece=ece(log_probs, labels),
        ece_null=ece_null(log_probs, rng=numpy_generator(seed, "ece_null", family, stage)),
    )
