"""The process that trains on a CPU: where its tensors find memory, how its threads wait."""

import ctypes
import os
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
"""Of mallopt(3)."""
_NEVER = -1


def usable_cores() -> int:
    """Return the cores allowed by the affinity and by a cgroup quota (v1 or v2), at least 1.

    A quota of 1.5 cores counts as 2. The environment variable LOKY_MAX_CPU_COUNT lowers it.
    """
    from joblib import cpu_count  # takes 0.2 s, most of it for NumPy

    return int(cpu_count())


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait for each other, unless the user says otherwise.

    On a quiet machine that is as fast (docs/log.md). Where another process wants one of the
    cores, threads that wait actively take it from the very thread they wait for: ten times
    slower. It holds for this process if torch is not loaded yet, and for those it starts.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@cache
def share_arena() -> bool:
    """Let threads that are still to come allocate where the first one does; whether they will.

    By default glibc gives a thread an arena of its own, in heaps of 64 MB that go back when they
    are empty, whatever `keep_freed_memory` asks for. A training in such a thread meets 120,000
    page faults a step where one in the main thread meets none (docs/log.md).
    """
    return _mallopt((_M_ARENA_MAX, 1))


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep what tensors free for those that come next; whether it does.

    By default it gives each large tensor fresh pages and hands them back at once: a training
    step at width 64 then meets 93,000 page faults, a third of its time (docs/log.md). A process
    that keeps them takes 9% more memory at its peak.
    """
    return _mallopt((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER))


def _mallopt(*options: tuple[int, int]) -> bool:
    """Set what only glibc has; whether all of it was set."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return all(mallopt(*option) for option in options)
