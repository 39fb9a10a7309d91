"""Images on a device: copied once, freed with the array, read ahead in order if too many."""

import gc
import threading
import weakref
from collections.abc import Generator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.waits import META, counted_copies
from trainables.prediction import PixelSource
from trainables.recipe import Numerics
from trainables.resident_pixels import read_ahead, resident_copy

DEVICE = torch.device(META)
"""Has shapes but no values, so it can stand for a GPU where only copies are counted."""


def some_pixels() -> np.ndarray:
    return np.arange(30 * 4 * 4 * 3, dtype=np.uint8).reshape(30, 4, 4, 3)


def test_all_readers_of_an_array_share_one_copy() -> None:
    pixels = some_pixels()
    with counted_copies() as first:
        PixelSource(pixels, np.arange(20), Numerics(device=META))
    assert first.bytes >= pixels.nbytes
    with counted_copies() as later:
        for indices in (np.arange(5), np.arange(5, 30)):
            source = PixelSource(pixels, indices, Numerics(device=META))
            assert [len(batch) for batch in source.batches(size=5)] == [5] * (len(indices) // 5)
    assert later.bytes < pixels.nbytes
    assert resident_copy(pixels, DEVICE) is resident_copy(pixels, DEVICE)
    assert resident_copy(pixels.copy(), DEVICE) is not resident_copy(pixels, DEVICE)


def test_a_copy_is_freed_with_its_array() -> None:
    """Another data set of the same process finds the memory free, whatever its arrays' ids."""
    gc.disable()
    try:
        for _ in range(20):
            pixels = some_pixels()
            with counted_copies() as copies:
                copy = resident_copy(pixels, DEVICE)
            assert copy is not None
            assert copies.bytes == pixels.nbytes, "the copy of an earlier array was returned"
            alive = weakref.ref(copy)
            del copy
            assert alive() is not None
            del pixels
            assert alive() is None
    finally:
        gc.enable()


def test_images_that_do_not_fit_are_copied_batch_by_batch() -> None:
    pixels = np.broadcast_to(some_pixels()[:1], (10**11, 4, 4, 3))  # 5 TB
    source = PixelSource(pixels, np.arange(7, 10**6, 7), Numerics(device=META))
    with counted_copies() as copies:
        batches = list(source.batches(torch.arange(20), size=8))
    assert [batch.shape for batch in batches] == [(7, 3, 4, 4), (7, 3, 4, 4), (6, 3, 4, 4)]
    assert all(batch.device == DEVICE for batch in batches)
    assert (copies.count, copies.bytes) == (3, 20 * pixels[0].nbytes)


def test_nothing_is_copied_on_the_cpu() -> None:
    assert resident_copy(some_pixels(), torch.device("cpu")) is None


@given(st.lists(st.integers(), max_size=9))
def test_items_are_read_once_and_in_order(items: list[int]) -> None:
    read: list[int] = []

    def remembered(item: int) -> int:
        read.append(item)
        return 2 * item

    assert list(read_ahead(remembered, items)) == [2 * item for item in items]
    assert read == items


def test_the_next_item_is_read_while_one_is_used_and_no_further_ones() -> None:
    started = [threading.Event() for _ in range(4)]

    def read(item: int) -> int:
        started[item].set()
        return item

    results = read_ahead(read, range(4))
    assert isinstance(results, Generator)
    assert next(results) == 0
    assert started[1].wait(60)
    assert not started[2].is_set()
    results.close()
    assert not started[2].is_set()


def test_an_error_of_a_read_reaches_the_user() -> None:
    def read(item: int) -> int:
        if item == 2:
            raise OSError("gone")
        return item

    results = read_ahead(read, range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(results)
