"""Failures by their text: a failed allocation, or a worker killed for the machine's memory."""

import traceback
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.failures import (
    note_peak_memory,
    noted_peak_memory,
    reason_of,
    says_node_out_of_memory,
    says_out_of_memory,
)

MONITOR = "1 worker(s) were killed due to the node running low on memory. 7.6GB used / 8GB limit"


def traceback_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def in_a_worker(error: Exception) -> str:
    """Return the traceback of an error that was raised in a Ray worker."""
    raised: Any = ray.exceptions.RayTaskError
    return traceback_of(raised("train", traceback_of(error), error).as_instanceof_cause())


def killed(message: str) -> str:
    """Return the traceback of Ray's error for a worker that its memory monitor killed."""
    error: Any = ray.exceptions.OutOfMemoryError
    return traceback_of(error(message))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
)
def test_an_allocation_that_failed_is_not_the_monitors(error: Exception) -> None:
    for text in (traceback_of(error), in_a_worker(error)):
        assert says_out_of_memory(text)
        assert not says_node_out_of_memory(text)


@pytest.mark.parametrize(
    "text",
    [
        MONITOR,
        f"Task was killed due to the node running low on memory.\n{MONITOR}",
        killed(MONITOR),
        killed("see the out of memory issue"),
    ],
)
def test_a_kill_by_the_memory_monitor_is_no_failed_allocation(text: str) -> None:
    assert says_node_out_of_memory(text)
    assert not says_out_of_memory(text)


@pytest.mark.parametrize("text", ["", "ValueError: no rows", "the worker died unexpectedly"])
def test_other_failures_are_neither(text: str) -> None:
    assert not says_out_of_memory(text)
    assert not says_node_out_of_memory(text)


def test_this_version_of_ray_uses_the_monitors_words() -> None:
    raylet = Path(ray.__file__).parent / "core/src/ray/raylet/raylet"
    assert b"killed due to the node running low on memory" in raylet.read_bytes()


@given(peak=st.integers(0, 10**13), message=st.text())
def test_a_peak_noted_on_an_error_is_read_from_its_traceback_and_is_no_reason(
    peak: int, message: str
) -> None:
    try:
        raise MemoryError(message)
    except MemoryError as error:
        note_peak_memory(error, peak)
        lines = traceback.format_exception(error)
    text = "".join(lines)
    assert noted_peak_memory(text) == peak
    assert says_out_of_memory(text)
    assert noted_peak_memory("".join(lines[:-1])) is None
    without = reason_of("ray::train()\n" + "".join(lines[:-1]))
    assert reason_of("ray::train()\n" + text) == without
