"""Python's speed on this machine, for work besides training: starting, exporting, reporting."""

import time
from collections.abc import Callable

USUAL_LOOPS_PER_SECOND = 220.0
"""Calls of `_loop` per second on a machine that keeps, with some margin, the times that a plan
assumes for fixed work: 15 s for a report, 8 s for a ledger. A machine with 375 keeps them easily;
one with 100 took 20 to 22 s for a report and 10 s for a ledger."""

LOOPING_SECONDS = 0.3
"""Time for which loops are counted."""


def slowness(clock: Callable[[], float] = time.monotonic) -> float:
    """Return how many times as long as on the usual machine Python takes here; at least 1.

    Measured in wall-clock time, so that other processes on the machine count, for LOOPING_SECONDS.
    """
    loops, began = 0, clock()
    while True:
        _loop()
        loops += 1
        elapsed = clock() - began
        if elapsed >= LOOPING_SECONDS:
            return max(1.0, USUAL_LOOPS_PER_SECOND * elapsed / loops)


def _loop() -> int:
    return sum(number * number for number in range(100_000))
