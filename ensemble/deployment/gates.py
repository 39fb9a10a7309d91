"""The release gates: the conditions under which the int8 student may ship.

Each gate compares a figure with its limit by a one-sided bound, on holdout. It passes if even
the unfavourable bound keeps the limit, fails if even the favourable bound breaks it, and is
undecided in between. Axes: N examples, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from common.seeds import numpy_generator
from common.statistics.intervals import one_sided_bound
from ensemble.deployment.card import Speedup
from ensemble.ledger.ledger import Gate, Verdict
from ensemble.ledger.predictions import Predictions, StageCost
from ensemble.selection.comparison import SCORES

LEVEL = 0.95
"""Confidence of every gate's one-sided bound."""

TIMING_ERROR = 0.05
"""Relative error assumed for a ratio of two latencies that were not measured in pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateMargins:
    """Margins of the release gates; the sweep's specification holds their defaults."""

    max_accuracy_loss: float
    """The int8 student may be at most this much less accurate than the ensemble."""
    max_nll_gain: float
    """The int8 student may have at most this much more NLL than the fp32 student, in nats."""
    min_speedup: float
    """The int8 student must be at least this many times faster than fp32, at batch size 1."""
    min_shrink: float
    """The fp32 file must be at least this many times larger than the int8 file."""


def decide_gates(
    holdout: Predictions,
    costs: Mapping[str, StageCost],
    margins: GateMargins,
    *,
    speedup: Speedup | None = None,
    seed: int = 0,
) -> tuple[Gate, ...]:
    """Decide the release gates of the int8 student on holdout; return () without such a student.

    `accuracy_loss` (against the ensemble) and `nll_gain` (against fp32) are paired means with
    one-sided bounds at 95%. `speedup` uses the bound of the paired timings; without those, 5%
    on either side of the ratio of the two latencies. `shrink` is exact. A gate whose figures
    are missing is undecided. `costs` are by stage; `seed` roots the bootstrap's draws.
    """
    holdout.check()
    if "student_int8" not in holdout.stages:
        return ()
    loss = _paired(holdout, "ensemble", "student_int8", "accuracy", seed=seed)
    gain = _paired(holdout, "student_int8", "student_fp32", "nll", seed=seed)
    fp32, int8 = (costs.get(f"student_{p}", StageCost()) for p in ("fp32", "int8"))
    return (
        _gate("accuracy_loss", loss, margins.max_accuracy_loss, at_most=True),
        _gate("nll_gain", gain, margins.max_nll_gain, at_most=True),
        _gate("speedup", _speedup(fp32, int8, speedup), margins.min_speedup, at_most=False),
        _gate("shrink", _ratio(fp32.bytes, int8.bytes), margins.min_shrink, at_most=False),
    )


def released_precision(gates: Sequence[Gate]) -> Literal["int8", "fp32"]:
    """Return `int8` if there are gates and all of them pass, else `fp32`."""
    passed = bool(gates) and all(gate.verdict == "pass" for gate in gates)
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


def _speedup(fp32: StageCost, int8: StageCost, measured: Speedup | None) -> _Estimate | None:
    if measured is None:
        return _ratio(fp32.latency_ms_batch1, int8.latency_ms_batch1, error=TIMING_ERROR)
    # Only the lower bound is measured; the upper bound of a ratio lies as far away in log scale.
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

    def keeps_limit(value: float) -> bool:
        return value <= limit if at_most else value >= limit

    verdict: Verdict = (
        "pass" if keeps_limit(worst) else "undecided" if keeps_limit(best) else "fail"
    )
    return Gate(
        name=name, value=estimate.value, bound=worst, optimistic=best, limit=limit, verdict=verdict
    )
