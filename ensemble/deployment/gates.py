"""The release gates: whether the int8 student may ship.

Each gate compares a figure with its limit by a one-sided bound, on holdout: it passes if
even the unfavourable bound keeps the limit, fails if even the favourable one breaks it, and
is undecided between. Axes: N examples, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from common.seeds import numpy_generator
from common.statistics.intervals import one_sided_bound
from ensemble.deployment.card import Speedup
from ensemble.ledger.rows import Predictions, StageFacts
from ensemble.selection.comparison import SCORES

LEVEL = 0.95
"""Confidence of every gate's one-sided bound."""

TIMING_ERROR = 0.05
"""Relative error granted to a ratio of two latencies that were not measured in pairs."""

Verdict = Literal["pass", "fail", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GateMargins:
    """Margins of the release gates; their defaults stand in the sweep's specification."""

    max_accuracy_loss: float
    """Student int8 may be at most this much less accurate than the ensemble."""
    max_nll_gain: float
    """Student int8 may have at most this much more NLL than the student in fp32."""
    min_speedup: float
    """The int8 student must be at least this much faster than in fp32, batch 1."""
    min_shrink: float
    """The int8 file must be at least this much smaller than the fp32 file."""


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
    holdout.check()
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


class _Estimate(NamedTuple):
    """A value between its one-sided bounds."""

    low: float
    value: float
    high: float


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
