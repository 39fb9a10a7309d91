"""The ledger: what every stage of a run is worth, and which student may ship.

Axes: N examples, K classes. Pure table logic: predictions come in as log-probabilities
[N, K], each stage's after its own temperature, and plain mappings go out, ready for JSON.
A stage that is absent is left out; nothing is made up for it.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ensemble.card import Speedup
from ensemble.comparison import SCORES, compare
from trainables.errors import PoolError
from trainables.intervals import one_sided_bound, proportion_interval
from trainables.metrics import (
    accuracy,
    balanced_accuracy,
    brier,
    correct,
    ece,
    ece_null,
    macro_f1,
    nll,
)
from trainables.seeds import numpy_generator

SCHEMA = 1

STAGES = (
    "best_single",
    "uniform_top_k",
    "seeds_ensemble",
    "ensemble",
    "student_plain",
    "student_fp32",
    "student_int8",
)

PAIRS = (
    ("ensemble", "best_single"),
    ("ensemble", "uniform_top_k"),
    ("ensemble", "seeds_ensemble"),
    ("student_fp32", "student_plain"),
    ("student_int8", "student_fp32"),
    ("student_int8", "ensemble"),
)
"""Which stages are compared: the first less the second."""

LEVEL = 0.95
"""Confidence of every gate's one-sided bound."""

TIMING_ERROR = 0.05
"""Relative error granted to a ratio of two latencies that were not measured in pairs."""

Verdict = Literal["pass", "fail", "undecided"]
LogProbs = Float[np.ndarray, "N K"]
Labels = Int[np.ndarray, " N"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFacts:
    """What a stage costs; None where it was not measured."""

    params: int | None = None
    """Parameters, summed over an ensemble's members."""
    bytes: int | None = None
    """Size of its files."""
    latency_ms_batch1: float | None = None
    """Milliseconds of a call with one image."""
    images_per_second: float | None = None
    train_seconds: float | None = None
    """Training time, summed over an ensemble's members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateMargins:
    """Margins of the release gates."""

    max_accuracy_loss: float = 0.02
    """Student int8 may be at most this much less accurate than the ensemble."""
    max_nll_gain: float = 0.10
    """Student int8 may have at most this much more NLL than the student in fp32."""
    min_speedup: float = 1.0
    """The int8 student must be at least this much faster than in fp32, batch 1."""
    min_shrink: float = 1.5
    """The int8 file must be at least this much smaller than the fp32 file."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Every stage's predictions on one split."""

    labels: Labels
    stages: Mapping[str, LogProbs]
    """By the stage's name, each after its own temperature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One condition of release; figures that were not measured are None."""

    name: str
    value: float | None
    bound: float | None
    """One-sided 95% bound on the unfavourable side: pass if even this keeps the limit."""
    optimistic: float | None
    """The same on the favourable side: fail if even this breaks the limit."""
    limit: float
    verdict: Verdict


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
    _check(predictions)
    return [
        _row(stage, predictions, facts.get(stage, StageFacts()), split=split, seed=seed)
        for stage in STAGES
        if stage in predictions.stages
    ]


def differences(predictions: Predictions, *, seed: int = 0) -> list[dict[str, Any]]:
    """The PAIRS of stages that are there, compared in accuracy and NLL."""
    _check(predictions)
    return [
        compare(a, b, metric, predictions.stages, predictions.labels, seed=seed)
        for a, b in PAIRS
        if a in predictions.stages and b in predictions.stages
        for metric in SCORES
    ]


def gates(
    holdout: Predictions,
    facts: Mapping[str, StageFacts],
    margins: GateMargins,
    *,
    speedup: Speedup | None = None,
    seed: int = 0,
) -> list[Gate]:
    """The release gates of the int8 student, decided on holdout; none if there is no such.

    `accuracy_loss` (against the ensemble) and `nll_gain` (against fp32) are paired means
    with one-sided bounds at 95%. `speedup` has the bound of its paired timings or, without
    such, 5% on either side of the ratio of two latencies. `shrink` is exact. A gate whose
    figures are missing is undecided.
    """
    _check(holdout)
    if "student_int8" not in holdout.stages:
        return []
    loss = _paired(holdout, "ensemble", "student_int8", "accuracy", seed=seed)
    gain = _paired(holdout, "student_int8", "student_fp32", "nll", seed=seed)
    fp32, int8 = (facts.get(f"student_{p}", StageFacts()) for p in ("fp32", "int8"))
    return [
        _gate("accuracy_loss", loss, margins.max_accuracy_loss, at_most=True),
        _gate("nll_gain", gain, margins.max_nll_gain, at_most=True),
        _gate("speedup", _speedup(fp32, int8, speedup), margins.min_speedup, at_most=False),
        _gate("shrink", _ratio(fp32.bytes, int8.bytes), margins.min_shrink, at_most=False),
    ]


def released(decided: Sequence[Gate]) -> Literal["int8", "fp32"]:
    """`int8` if there are gates and all pass; `fp32` otherwise."""
    passed = bool(decided) and all(gate.verdict == "pass" for gate in decided)
    return "int8" if passed else "fp32"


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


class _Estimate(NamedTuple):
    """A value between its one-sided bounds."""

    low: float
    value: float
    high: float


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


def _paired(holdout: Predictions, a: str, b: str, metric: str, *, seed: int) -> _Estimate | None:
    if a not in holdout.stages or b not in holdout.stages:
        return None
    score = SCORES[metric]
    values = score(holdout.stages[a], holdout.labels).astype(np.float64)
    values -= score(holdout.stages[b], holdout.labels)

    def bound(side: Literal["upper", "lower"]) -> float:
        rng = numpy_generator(seed, "gate", a, b, metric, side)
        return one_sided_bound(values, side=side, level=LEVEL, rng=rng)

    return _Estimate(low=bound("lower"), value=float(values.mean()), high=bound("upper"))


def _speedup(fp32: StageFacts, int8: StageFacts, measured: Speedup | None) -> _Estimate | None:
    if measured is None:
        return _ratio(fp32.latency_ms_batch1, int8.latency_ms_batch1, error=TIMING_ERROR)
    # Only the lower bound was measured; in a ratio the other lies as far away in log scale.
    high = measured.value * measured.value / measured.bound
    return _Estimate(low=measured.bound, value=measured.value, high=high)


def _ratio(a: float | None, b: float | None, *, error: float = 0.0) -> _Estimate | None:
    if not a or not b:
        return None
    return _Estimate(low=a / b * (1.0 - error), value=a / b, high=a / b * (1.0 + error))


def _gate(name: str, estimate: _Estimate | None, limit: float, *, at_most: bool) -> Gate:
    if estimate is None:
        return Gate(
            name=name, value=None, bound=None, optimistic=None, limit=limit, verdict="undecided"
        )
    worst, best = (estimate.high, estimate.low) if at_most else (estimate.low, estimate.high)

    def keeps(value: float) -> bool:
        return value <= limit if at_most else value >= limit

    verdict: Verdict = "pass" if keeps(worst) else "undecided" if keeps(best) else "fail"
    return Gate(
        name=name, value=estimate.value, bound=worst, optimistic=best, limit=limit, verdict=verdict
    )


def _check(predictions: Predictions) -> None:
    for stage, log_probs in predictions.stages.items():
        if stage not in STAGES:
            raise PoolError(f"unknown stage {stage!r}; stages: {', '.join(STAGES)}")
        if log_probs.ndim != 2 or predictions.labels.shape != log_probs.shape[:1]:
            raise PoolError(
                f"stage {stage!r}: expected log-probabilities "
                f"[{len(predictions.labels)}, K], got shape {list(log_probs.shape)}"
            )
        if np.isnan(log_probs).any():
            raise PoolError(f"stage {stage!r}: log-probabilities must not be NaN")
