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
    """Return the peak memory in bytes since `restart_peak_memory`.

    On CUDA: the peak of allocated memory and what CUDA graphs reserve now, an upper bound. On a
    CPU: the peak of this process's resident memory.
    """
    if device.startswith("cuda"):
        import torch

        # Between replays, torch does not count a graph's memory as allocated.
        return int(torch.cuda.max_memory_allocated(device)) + graph_memory_bytes(device)
    try:
        status = Path("/proc/self/status").read_text()
        kibibytes = int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError, ValueError):
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes * 1024


def graph_memory_bytes(device: str) -> int:
    """Return the memory that torch's allocator keeps for CUDA graphs, which nothing else can use.

    0 if this torch does not report it.
    """
    import torch

    sizes = torch.cuda.memory_stats(device)
    return sum(
        int(size)
        for key, size in sizes.items()
        if key.startswith("reserved_bytes_by_private_pools.") and key.endswith(".all.current")
    )
