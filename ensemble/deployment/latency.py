"""Time an exported classifier: latency, throughput, and the speed ratio of two models."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ensemble.deployment.card import Latency, Speedup
from ensemble.deployment.onnx_model import Images, OnnxClassifier

BLOCK_SECONDS = 2e-3
"""Length of a timed block of calls, long enough to make the cost of the clock negligible."""

BATCH = 256
"""Number of images in a call whose throughput is measured."""

WARM_UP = 10
"""Calls before timing starts."""


def latency(
    classifier: OnnxClassifier,
    images: Images,
    *,
    batch: int = BATCH,
    repeats: int = 50,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Time calls with one image and with `batch` images (repeated if there are fewer).

    A repeat is the mean over a block of calls of about 2 ms. The interval is the exact
    order-statistic interval of a median, for independent repeats; other load on the machine
    widens it. `clock` counts seconds.
    """
    single = np.ascontiguousarray(images[:1])
    times = _times(lambda: classifier.run(single), repeats, clock)
    return _latency(classifier, images, times, batch=batch, clock=clock)


def _latency(
    classifier: OnnxClassifier,
    images: Images,
    times: npt.NDArray[np.float64],
    *,
    batch: int = BATCH,
    clock: Callable[[], float],
) -> Latency:
    """Add the throughput to the times of one image, seconds [repeats], ascending."""
    repeats = len(times)
    many = np.resize(images, (batch, *images.shape[1:]))
    low, high = median_ranks(repeats, 0.975)
    batch_times = _times(lambda: classifier.run(many), max(5, repeats // 5), clock, warm_up=2)
    return Latency(
        ms_batch1=float(np.median(times)) * 1e3,
        interval=(float(times[low]) * 1e3, float(times[high]) * 1e3),
        images_per_second=batch / float(np.median(batch_times)),
        batch=batch,
        repeats=repeats,
        threads=classifier.threads,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedLatency:
    """The times of two models, measured alternately."""

    speedup: Speedup
    """The second model's speed relative to the first's."""
    first: Latency
    second: Latency


def paired_latency(
    a: OnnxClassifier,
    b: OnnxClassifier,
    images: Images,
    *,
    repeats: int = 50,
    level: float = 0.95,
    clock: Callable[[], float] = time.perf_counter,
) -> PairedLatency:
    """Time `a` and `b` alternately, and measure how many times faster `b` answers for one image.

    Blocks of calls alternate as a b b a, so slow changes of the machine's speed cancel within
    a repeat. The speedup's `bound` and `high` are the sign test's lower and upper confidence bounds
    on the median ratio: exact for independent repeats, whatever their distribution. The latencies
    of one image come from the same blocks: if measured one after the other under changing load,
    they could make the slower model look faster. `images`, uint8 [N, H, W, 3], and `clock`, which
    counts seconds, are as for `latency`.

    Raises:
        ValueError: too few repeats for a bound at `level`.
    """
    low, high = median_ranks(repeats, level)
    image = np.ascontiguousarray(images[:1])
    run_a, run_b = (lambda: a.run(image)), (lambda: b.run(image))
    calls_a, calls_b = _calls_per_block(run_a, clock), _calls_per_block(run_b, clock)
    seconds = np.empty((2, repeats))
    for i in range(repeats):
        first = _block(run_a, calls_a, clock)
        both = _block(run_b, calls_b, clock) + _block(run_b, calls_b, clock)
        seconds[0, i] = (first + _block(run_a, calls_a, clock)) / (2 * calls_a)
        seconds[1, i] = both / (2 * calls_b)
    ratios = np.sort(seconds[0] / seconds[1])
    return PairedLatency(
        speedup=Speedup(
            value=float(np.median(ratios)),
            bound=float(ratios[low]),
            high=float(ratios[high]),
            level=level,
            repeats=repeats,
        ),
        first=_latency(a, images, np.sort(seconds[0]), clock=clock),
        second=_latency(b, images, np.sort(seconds[1]), clock=clock),
    )


def median_ranks(repeats: int, level: float) -> tuple[int, int]:
    """Return the ranks (from 0) that bound the median below and above, each at `level`.

    The number of repeats below the median is Binomial(repeats, 1/2). The k-th smallest exceeds
    the median with probability P(number < k), which must be at most 1 − level.

    Raises:
        ValueError: too few repeats for a bound at `level`.
    """
    rank, tail = -1, 0.0
    while (tail := tail + math.comb(repeats, rank + 1) / 2**repeats) <= 1 - level:
        rank += 1
    if rank < 0:
        raise ValueError(
            f"{repeats} repeats are too few for a bound at level {level}; "
            f"use at least {math.ceil(-math.log2(1 - level))}"
        )
    return rank, repeats - 1 - rank


def _times(
    call: Callable[[], object],
    repeats: int,
    clock: Callable[[], float],
    *,
    warm_up: int = WARM_UP,
) -> npt.NDArray[np.float64]:
    """Return seconds per call, float64 [repeats], ascending."""
    calls = _calls_per_block(call, clock, warm_up=warm_up)
    return np.sort([_block(call, calls, clock) / calls for _ in range(repeats)])


def _calls_per_block(
    call: Callable[[], object], clock: Callable[[], float], *, warm_up: int = WARM_UP
) -> int:
    """Warm up, then return how many calls fill a block."""
    _block(call, warm_up, clock)
    return max(1, round(BLOCK_SECONDS / min(_block(call, 1, clock) for _ in range(3))))


def _block(call: Callable[[], object], calls: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(calls):
        call()
    return clock() - start
