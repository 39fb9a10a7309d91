"""Set up a process for training on a CPU: core count, memory allocator, waiting threads."""

import ctypes
import os
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
"""Options of mallopt(3)."""
_NEVER = -1


def usable_cores() -> int:
    """Return the cores allowed by the affinity and by a cgroup quota (v1 or v2), at least 1.

    A quota of 1.5 cores counts as 2. The environment variable LOKY_MAX_CPU_COUNT lowers it.
    """
    from joblib import cpu_count  # takes 0.2 s, most of it for NumPy

    return int(cpu_count())


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait for each other, unless OMP_WAIT_POLICY is set.

    On a quiet machine this is as fast (docs/log.md). If another process needs one of the cores,
    busy-waiting threads take it from the thread they are waiting for, which is ten times
    slower. The setting acts on this process if torch is not loaded yet, and on its children.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@cache
def share_arena() -> bool:
    """Make threads started later share the main thread's memory arena; return whether it worked.

    By default glibc gives each thread its own arena, in heaps of 64 MB that are returned to the
    system when empty, in spite of `keep_freed_memory`. A training in such a thread has 120,000
    page faults per step, one in the main thread none (docs/log.md).
    """
    return _mallopt((_M_ARENA_MAX, 1))


@cache
def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for new tensors; return whether it worked.

    By default it takes fresh pages for each large tensor and returns them on release: a training
    step at width 64 then has 93,000 page faults, a third of its time (docs/log.md). Keeping the
    pages raises peak memory by 9%.
    """
    return _mallopt((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER))


def return_freed_memory() -> None:
    """Return what this process has freed to the kernel, once, even if it keeps it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def _mallopt(*options: tuple[int, int]) -> bool:
    """Set options that only glibc has; return whether all were set."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return all(mallopt(*option) for option in options)
