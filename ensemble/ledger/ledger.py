"""The ledger: what every stage of a run is worth, and which student may ship.

Axes: N examples, K classes. Pure table logic: predictions come in as log-probabilities
[N, K], each stage's after its own temperature, and plain mappings go out, ready for JSON.
A stage that is absent is left out; nothing is made up for it.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

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
from ensemble.deployment.card import Speedup
from ensemble.deployment.gates import GateMargins, gates, released
from ensemble.ledger.rows import STAGES, Predictions, StageFacts
from ensemble.selection.comparison import SCORES, compare

SCHEMA = 1

PAIRS = (
    ("ensemble", "best_single"),
    ("ensemble", "uniform_top_k"),
    ("ensemble", "seeds_ensemble"),
    ("student_fp32", "student_plain"),
    ("student_int8", "student_fp32"),
    ("student_int8", "ensemble"),
)
"""Which stages are compared: the first less the second."""


def build_ledger(
    *,
    run: str,
    dataset: Mapping[str, Any],
    test: Predictions,
    holdout: Predictions,
    facts: Mapping[str, StageFacts],
    margins: GateMargins,
    test_reads: int,
    compute: Mapping[str, Any],
    machine: Mapping[str, Any],
    speedup: Speedup | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The mapping of ledger.json: rows and differences on test, gates on holdout.

    Unless every gate passes, fp32 is released. `seed` roots the bootstrap's draws.

    Raises:
        PoolError: an unknown stage, or predictions that do not fit the labels.
    """
    decided = gates(holdout, facts, margins, speedup=speedup, seed=seed)
    return {
        "schema": SCHEMA,
        "run": run,
        "dataset": dict(dataset),
        "rows": ledger_rows(test, facts, seed=seed),
        "differences": differences(test, seed=seed),
        "gates": [asdict(gate) for gate in decided],
        "released": released(decided),
        "test_reads": test_reads,
        "compute": dict(compute),
        "machine": dict(machine),
    }


def ledger_rows(
    predictions: Predictions,
    facts: Mapping[str, StageFacts],
    *,
    split: str = "test",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row for each stage that is there, in the order of STAGES.

    `accuracy_interval` is Wilson's at 95%; `ece_null` is the mean ECE of a perfectly
    calibrated model with these confidences.

    Raises:
        PoolError: an unknown stage, or predictions that do not fit the labels.
    """
    predictions.check()
    return [
        _row(stage, predictions, facts.get(stage, StageFacts()), split=split, seed=seed)
        for stage in STAGES
        if stage in predictions.stages
    ]


def differences(predictions: Predictions, *, seed: int = 0) -> list[dict[str, Any]]:
    """The PAIRS of stages that are there, compared in accuracy and NLL."""
    predictions.check()
    return [
        compare(a, b, metric, predictions.stages, predictions.labels, seed=seed)
        for a, b in PAIRS
        if a in predictions.stages and b in predictions.stages
        for metric in SCORES
    ]


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV with a header; an interval becomes two columns, None an empty cell."""
    flat = [
        {
            column: cell
            for key, value in row.items()
            for column, cell in (
                zip((f"{key}_low", f"{key}_high"), value, strict=True)
                if isinstance(value, list)
                else [(key, value)]
            )
        }
        for row in rows
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(flat[0]) if flat else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _row(
    stage: str, predictions: Predictions, facts: StageFacts, *, split: str, seed: int
) -> dict[str, Any]:
    log_probs, labels = predictions.stages[stage], predictions.labels
    right = correct(log_probs, labels)
    interval = proportion_interval(int(right.sum()), len(right))
    ensemble = predictions.stages.get("ensemble")
    agreement = None
    if ensemble is not None:
        agreement = float((log_probs.argmax(axis=1) == ensemble.argmax(axis=1)).mean())
    return {
        "stage": stage,
        "split": split,
        "accuracy": accuracy(log_probs, labels),
        "accuracy_interval": [interval.low, interval.high],
        "balanced_accuracy": balanced_accuracy(log_probs, labels),
        "macro_f1": macro_f1(log_probs, labels),
        "nll": nll(log_probs, labels),
        "brier": brier(log_probs, labels),
        "ece": ece(log_probs, labels),
        "ece_null": ece_null(log_probs, rng=numpy_generator(seed, "ece_null", split, stage)),
        **asdict(facts),
        "agreement_with_ensemble": agreement,
    }
