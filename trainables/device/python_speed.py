"""Python's speed on this machine, for work besides training: starting, exporting, reporting."""

import time
from collections.abc import Callable

USUAL_LOOPS_PER_SECOND = 220.0
"""Loops of `_loop` a second on a machine that keeps the fixed times of a plan with some margin. One
with 375 keeps them easily; one with 100 took 20 to 22 s for a report (15 s in a plan) and 10 s for
a ledger (8 s)."""

LOOPING_SECONDS = 0.3
"""Time for which loops are counted."""


def slowness(clock: Callable[[], float] = time.monotonic) -> float:
    """Return how many times as long work in Python takes as on the usual machine; at least 1.

    Wall-clock time, so that other processes on the machine count. Takes LOOPING_SECONDS.
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
