"""The release gates: the conditions that a file must meet to ship.

Each gate compares a figure with its limit by a one-sided bound, on holdout. It passes if even the
unfavourable bound is within the limit, fails if even the favourable bound breaks it, and is
undecided in between. Axes: N examples, K classes.

`corruption_loss` is decided on corrupted holdout images, each with one corruption at one severity
(`ensemble.robustness`); without them there is no such gate.

Quality gates and budgets apply to every file. Precision gates apply to int8 files, each compared
with the fp32 file of the same network.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from common.seeds import numpy_generator
from common.statistics.intervals import draws_at, one_sided_bound, proportion_interval
from common.statistics.metrics import correct, nll_per_example
from ensemble.deployment.card import Speedup
from ensemble.ledger.ledger import Gate, Verdict
from ensemble.ledger.predictions import FILES, Predictions, StageCost
from ensemble.selection.comparison import SCORES

LEVEL = 0.95
"""Confidence of every gate's one-sided bound, at the first decision on a holdout split."""

MOST_ERRORS = 0.1
"""Bound on the probability that any of the decisions on a holdout split passes a gate for a file
that is at the limit."""

MOST_ACCURACY_LOSS = 0.02
"""Largest default margin of `accuracy_loss`."""

MOST_CORRUPTION_LOSS = 0.05
"""Largest default margin of `corruption_loss`. If one image in five is classified correctly by
either the ensemble or the file but not both, 500 images show a loss of five points with a
probability of 80%: (1.645 + 0.842)·√(0.2/500) = 0.05."""

QUALITY_GATES = frozenset({"accuracy_loss", "corruption_loss"})
"""The gates that compare any file with the ensemble; the others are of precision, or budgets."""

PRECISION_GATES = frozenset({"nll_gain", "speedup", "shrink"})
"""The gates that choose between the two files of a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateMargins:
    """Margins of the release gates; the sweep's specification holds their defaults."""

    max_accuracy_loss: float | None = None
    """A file may be at most this much less accurate than the ensemble; None means
    `accuracy_margin`."""
    max_corruption_loss: float | None = None
    """The same on corrupted images; None means `corruption_margin`."""
    max_nll_gain: float | None = None
    """An int8 file's NLL may exceed that of its fp32 file by at most this much, in nats; None means
    `nll_margin`."""
    min_speedup: float = 1.0
    """An int8 file must be at least this many times faster than its fp32 file, at batch size 1."""
    min_shrink: float = 1.5
    """An fp32 file must be at least this many times larger than its int8 file."""
    max_latency_ms: float | None = None
    """Largest latency of a call with one image, in milliseconds."""
    max_bytes: int | None = None
    """Largest size of the file."""
    max_params: int | None = None
    """Largest number of parameters."""
    max_gflops: float | None = None
    """Largest number of floating-point operations of a call with one image, in billions."""


def level_of(decision: int) -> float:
    """Return the confidence of the bounds of the k-th decision: 1 − MOST_ERRORS/(k(k + 1)).

    It is LEVEL at the first. Errors of all decisions add up to at most MOST_ERRORS, however many
    there are and wherever the user stops (alpha spending); with 1 − 0.05/k they would add up to
    15% by the tenth, and grow without limit.
    """
    return 1.0 - MOST_ERRORS / (decision * (decision + 1))


def accuracy_margin(holdout: Predictions) -> float:
    """Return the default margin of `accuracy_loss`, from the ensemble's errors on holdout.

    Two points, but at most half of the ensemble's error rate, so that a file that ships makes at
    most one and a half times as many errors. Where the upper half of Wilson's 95% interval of that
    rate is wider than that half, its width is the margin, up to two points, because a smaller loss
    cannot be seen on this many images.
    """
    return _margin(holdout, most=MOST_ACCURACY_LOSS)


def corruption_margin(corrupted: Predictions) -> float:
    """Return the default margin of `corruption_loss`, from the ensemble's errors under corruption.

    The rule is that of `accuracy_loss`, with five points instead of two.
    """
    return _margin(corrupted, most=MOST_CORRUPTION_LOSS)


def nll_margin(holdout: Predictions, fp32: str) -> float:
    """Return the default margin of `nll_gain`: one standard error of the fp32 file's NLL."""
    values = nll_per_example(holdout.stages[fp32], holdout.labels).astype(np.float64)
    return float(values.std() / math.sqrt(len(values)))


def decide_gates(
    stage: str,
    holdout: Predictions,
    costs: Mapping[str, StageCost],
    margins: GateMargins,
    *,
    corrupted: Predictions | None = None,
    speedup: Speedup | None = None,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[Gate, ...]:
    """Decide the gates of one file, a key of FILES, on holdout.

    `accuracy_loss` and, on the `corrupted` images, `corruption_loss` (both against the ensemble)
    and, for int8, `nll_gain` (against fp32) are paired means with one-sided bounds at `level`.
    `speedup` uses the bounds of the paired timings. `shrink` and the budgets that the margins set
    (see `budgets`) are compared without bounds. A gate whose figures are missing is undecided.
    `costs` are by stage; `seed` roots the bootstrap's draws.
    """
    holdout.check()
    precision = FILES[stage][1]
    cost = costs.get(stage, StageCost())
    loss = margins.max_accuracy_loss
    found = [
        _gate(
            "accuracy_loss",
            _paired(holdout, "ensemble", stage, "accuracy", level=level, seed=seed),
            accuracy_margin(holdout) if loss is None else loss,
        )
    ]
    if corrupted is not None:
        corrupted.check()
        loss = margins.max_corruption_loss
        found.append(
            _gate(
                "corruption_loss",
                _paired(corrupted, "ensemble", stage, "accuracy", level=level, seed=seed),
                corruption_margin(corrupted) if loss is None else loss,
            )
        )
    if precision == "int8":
        fp32 = fp32_of(stage)
        full = costs.get(fp32, StageCost())
        gain = margins.max_nll_gain
        if gain is None:
            gain = nll_margin(holdout, fp32) if fp32 in holdout.stages else 0.0
        found += [
            _gate(
                "nll_gain", _paired(holdout, stage, fp32, "nll", level=level, seed=seed), gain
            ),
            _gate("speedup", _speedup(speedup), margins.min_speedup, at_most=False),
            _gate("shrink", _exact(_ratio(full.bytes, cost.bytes)), margins.min_shrink,
                  at_most=False),
        ]  # fmt: skip
    found += [
        _gate(name, _exact(value), limit) for name, (value, limit) in budgets(cost, margins).items()
    ]
    return tuple(replace(gate, stage=stage) for gate in found)


def budgets(cost: StageCost, margins: GateMargins) -> dict[str, tuple[float | None, float]]:
    """Return a file's cost and its limit, by gate, for each budget that the margins set."""
    all_of_them = {
        "latency_ms": (cost.latency_ms_batch1, margins.max_latency_ms),
        "bytes": (cost.bytes, margins.max_bytes),
        "params": (cost.params, margins.max_params),
        "gflops": (cost.gflops, margins.max_gflops),
    }
    return {
        name: (value, limit) for name, (value, limit) in all_of_them.items() if limit is not None
    }


def fp32_of(stage: str) -> str:
    """Return the stage of the fp32 file of the same network."""
    network = FILES[stage][0]
    return next(other for other, kind in FILES.items() if kind == (network, "fp32"))


def _margin(holdout: Predictions, *, most: float) -> float:
    ensemble = holdout.stages.get("ensemble")
    if ensemble is None:
        return most
    images = len(holdout.labels)
    wrong = images - int(correct(ensemble, holdout.labels).sum())
    resolution = proportion_interval(wrong, images).high - wrong / images
    return min(most, max(wrong / images / 2, resolution))


class _Estimate(NamedTuple):
    """A value between its one-sided bounds."""

    low: float
    value: float
    high: float


def _paired(
    holdout: Predictions, a: str, b: str, metric: str, *, level: float, seed: int
) -> _Estimate | None:
    if a not in holdout.stages or b not in holdout.stages:
        return None
    score = SCORES[metric]
    values = score(holdout.stages[a], holdout.labels).astype(np.float64)
    values -= score(holdout.stages[b], holdout.labels)

    def bound(side: Literal["upper", "lower"]) -> float:
        rng = numpy_generator(seed, "gate", a, b, metric, side)
        draws = draws_at(level)
        return one_sided_bound(values, side=side, level=level, rng=rng, draws=draws)

    return _Estimate(low=bound("lower"), value=float(values.mean()), high=bound("upper"))


def _speedup(measured: Speedup | None) -> _Estimate | None:
    if measured is None:
        return None
    high = measured.high
    if high is None:  # a card of an early version: as far away as the lower one, on a log scale
        high = measured.value * measured.value / measured.bound
    return _Estimate(low=measured.bound, value=measured.value, high=high)


def _exact(value: float | None) -> _Estimate | None:
    return None if value is None else _Estimate(low=value, value=value, high=value)


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


def _gate(name: str, estimate: _Estimate | None, limit: float, *, at_most: bool = True) -> Gate:
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
