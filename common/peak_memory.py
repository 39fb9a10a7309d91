"""Measure the peak memory of a training: of torch's allocator on a GPU, of the process on a CPU."""

import resource
from contextlib import suppress
from pathlib import Path

from common.cpu_runtime import return_freed_memory

_RESET_PEAK = "5"
"""Written to /proc/self/clear_refs, resets the kernel's peak of this process's memory (proc(5))."""


def restart_peak_memory(device: str) -> None:
    """Measure the peak from now on: a worker trains many trials, large ones before small ones.

    Where the kernel does not allow it, the peak on a CPU stays that of the whole process.
    """
    if device.startswith("cuda"):
        import torch  # takes seconds to import

        torch.cuda.reset_peak_memory_stats(device)
        return
    return_freed_memory()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)


def peak_memory_bytes(device: str) -> int:
    """Return the most memory that torch's allocator (CUDA) or this process (CPU) has held."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text()
        kibibytes = int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError, ValueError):
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes * 1024
