"""Memory of the process: where tensors on the CPU find theirs."""

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of mallopt(3)."""
_MOST = 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep what tensors free for those that come next; whether it does.

    By default it gives each large tensor fresh pages and hands them back at once: a training
    step at width 64 then meets 115,000 page faults, a sixth of its time (benchmarks/training.py).
    A process that keeps them takes about 3% more memory at its peak. Only glibc has the knobs.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _MOST))
