"""Compute the ledger's rows and paired differences from arrays of predictions.

Axes: N examples, K classes. Predictions are log-probabilities [N, K], each stage's after its
own temperature. A stage without predictions gets no row.
"""

from collections.abc import Mapping
from dataclasses import asdict

from common.seeds import numpy_generator
from common.statistics.intervals import proportion_interval
from common.statistics.metrics import (
    accuracy,
    balanced_accuracy,
    brier,
    correct,
    ece,
    ece_null,
    macro_f1,
    nll,
)
from ensemble.ledger.ledger import Row
from ensemble.ledger.predictions import STAGES, Predictions, StageCost
from ensemble.selection.comparison import SCORES, Comparison, compare

PAIRS = (
    ("ensemble", "best_single"),
    ("ensemble", "uniform_top_k"),
    ("ensemble", "seeds_ensemble"),
    ("weighted_vote", "soft_vote"),
    ("soft_vote", "hard_vote"),
    ("student_fp32", "student_plain"),
    ("student_fp32", "best_single"),
    ("student_int8", "student_fp32"),
    ("student_int8", "ensemble"),
    ("student_int8", "best_single_int8"),
    ("best_single_int8", "best_single"),
    ("best_single_int8", "ensemble"),
)
"""Stages that are compared: the first minus the second."""


def ledger_rows(
    predictions: Predictions,
    costs: Mapping[str, StageCost],
    *,
    split: str = "test",
    seed: int = 0,
) -> tuple[Row, ...]:
    """Return one row for each stage that has predictions, in the order of STAGES.

    `costs` are by stage; `seed` roots the draws of `ece_null`.

    Raises:
        PoolError: an unknown stage, or predictions that do not fit the labels.
    """
    predictions.check()
    return tuple(
        _row(stage, predictions, costs.get(stage, StageCost()), split=split, seed=seed)
        for stage in STAGES
        if stage in predictions.stages
    )


def paired_differences(predictions: Predictions, *, seed: int = 0) -> tuple[Comparison, ...]:
    """Compare the PAIRS of stages that have predictions, in accuracy and NLL.

    `seed` roots the bootstrap's draws.

    Raises:
        PoolError: an unknown stage, or predictions that do not fit the labels.
    """
    predictions.check()
    return tuple(
        compare(a, b, metric, predictions.stages, predictions.labels, seed=seed)
        for a, b in PAIRS
        if a in predictions.stages and b in predictions.stages
        for metric in SCORES
    )


def _row(stage: str, predictions: Predictions, cost: StageCost, *, split: str, seed: int) -> Row:
    log_probs, labels = predictions.stages[stage], predictions.labels
    right = correct(log_probs, labels)
    interval = proportion_interval(int(right.sum()), len(right))
    ensemble = predictions.stages.get("ensemble")
    agreement = None
    if ensemble is not None:
        agreement = float((log_probs.argmax(axis=1) == ensemble.argmax(axis=1)).mean())
    return Row(
        stage=stage,
        split=split,
        accuracy=accuracy(log_probs, labels),
        accuracy_interval=(interval.low, interval.high),
        balanced_accuracy=balanced_accuracy(log_probs, labels),
        macro_f1=macro_f1(log_probs, labels),
        nll=nll(log_probs, labels),
        brier=brier(log_probs, labels),
        ece=ece(log_probs, labels),
        ece_null=ece_null(log_probs, rng=numpy_generator(seed, "ece_null", split, stage)),
        **asdict(cost),
        agreement_with_ensemble=agreement,
    )
