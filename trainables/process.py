"""The process that trains on a CPU: where its tensors find memory, how its threads wait."""

import ctypes
import os
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of mallopt(3)."""
_MOST = 2**31 - 1


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait for each other, unless the user says otherwise.

    On a quiet machine that is as fast (docs/log.md). Where another process wants one of the
    cores, threads that wait actively take it from the very thread they wait for: ten times
    slower. It holds for this process if torch is not loaded yet, and for those it starts.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep what tensors free for those that come next; whether it does.

    By default it gives each large tensor fresh pages and hands them back at once: a training
    step at width 64 then meets 93,000 page faults, a third of its time (docs/log.md). A process
    that keeps them takes 9% more memory at its peak. Only glibc has the knobs.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _MOST))
