"""Images on a GPU: a copy that all readers in a process share, or batches read ahead.

Axes: N images, S×S pixels.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor

from common.peak_memory import graph_memory_bytes

SHARE_OF_FREE_MEMORY = 0.5
"""Largest share of a device's free memory that a copy may take."""

COPIED_AT_ONCE = 64 << 20
"""Bytes."""

_COPIES: dict[tuple[int, torch.device], Tensor] = {}
"""Copies by the array's `id`, and the device."""
_COPYING = Lock()
"""Held while a copy is made, so that threads that ask for it at the same time share it."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def resident_copy(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor | None:
    """Return images, uint8 [N, S, S, 3], on a device, copied there once.

    A later call with the same array, e.g. of the next trial in this process, returns the same
    copy. It is freed with the array: a process that holds one data set in memory holds at most
    one on its device. `pixels` may be memory-mapped, and must not change.

    None where there is no room for them.
    """
    key = (id(pixels), device)
    with _COPYING:
        if key not in _COPIES:
            if not has_room(device, pixels.nbytes):
                return None
            _COPIES[key] = _copy(pixels, device)
            # Python reuses an array's id after the array is gone.
            weakref.finalize(pixels, _COPIES.pop, key, None).atexit = False
        return _COPIES[key]


def has_room(device: torch.device, size_bytes: int) -> bool:
    """Return whether a device keeps a copy of this size: at most half of its free memory.

    The CPU keeps none, because all read the array itself.
    """
    return device.type != "cpu" and size_bytes <= SHARE_OF_FREE_MEMORY * free_memory(device)


def reads_ahead(device: torch.device) -> bool:
    """Return whether batches for a device are read ahead in a thread.

    On the CPU, the thread would take time from those that compute.
    """
    return device.type != "cpu"


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device in bytes, with what torch's allocator keeps for reuse.

    Memory that is kept for CUDA graphs is not free.
    """
    if device.type != "cuda":  # shares the host's memory
        return int(psutil.virtual_memory().available)
    free = int(torch.cuda.mem_get_info(device)[0])
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + max(0, kept - graph_memory_bytes(str(device)))


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `read(item)` of each item in order; the next one is read in a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        current: Future[Result] | None = None
        for item in items:
            following = pool.submit(read, item)
            if current is not None:
                yield current.result()
            current = following
        if current is not None:
            yield current.result()


def pinned(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return an array as a tensor; for CUDA in pinned memory, so that copies are asynchronous."""
    tensor = torch.from_numpy(pixels)
    return tensor.pin_memory() if device.type == "cuda" else tensor


def _copy(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    copy = torch.empty(pixels.shape, dtype=torch.uint8, device=device)
    count = max(1, COPIED_AT_ONCE * len(pixels) // max(1, pixels.nbytes))
    for start in range(0, len(pixels), count):
        # np.array copies each part, because torch warns of read-only arrays, such as mapped ones.
        copy[start : start + count].copy_(torch.from_numpy(np.array(pixels[start : start + count])))
    return copy
