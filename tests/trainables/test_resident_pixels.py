"""Images on a device: copied once, freed with the array, read ahead in order if too many."""

import gc
import threading
import time
import weakref
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quorum.testing.trainers import striped_images
from tests.waits import META, counted_copies
from trainables import prediction, resident_pixels
from trainables.data.image_set import ImageSet, LargeCopies
from trainables.prediction import PixelSource
from trainables.recipe import Numerics, Recipe
from trainables.resident_pixels import read_ahead, resident_copy
from trainables.training.loop import Training

DEVICE = torch.device(META)
"""Has shapes but no values, so it can stand for a GPU where only copies are counted."""


@pytest.fixture(autouse=True)
def _threads_restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


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


def test_threads_that_ask_at_a_time_share_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, pixels = 4, some_pixels()
    together, copy_slowly = threading.Barrier(threads), resident_pixels._copy

    def slow_copy(*arguments: Any) -> torch.Tensor:
        time.sleep(0.05)
        return copy_slowly(*arguments)

    def ask(_: int) -> torch.Tensor | None:
        together.wait(10)
        return resident_copy(pixels, DEVICE)

    monkeypatch.setattr(resident_pixels, "_copy", slow_copy)
    with counted_copies() as copied, ThreadPoolExecutor(threads) as pool:
        copies = [*pool.map(ask, range(threads))]
    assert len({id(copy) for copy in copies}) == 1
    assert copied.bytes <= pixels.nbytes


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


def treat_as_gpu(monkeypatch: pytest.MonkeyPatch, *, has_room: bool) -> None:
    """Keep copies on the CPU, in several steps, or read ahead, as on a GPU with or without room."""
    monkeypatch.setattr(resident_pixels, "has_room", lambda *_: has_room)
    monkeypatch.setattr(resident_pixels, "COPIED_AT_ONCE", 7 * 4 * 4 * 3)
    monkeypatch.setattr(prediction, "reads_ahead", lambda _: True)


INDICES = {
    "all": np.arange(30),
    "subset": np.arange(2, 30, 3),
    "unordered": np.random.default_rng(0).permutation(30)[:17],
    "repeated": np.array([4, 4, 29, 0, 4, 0]),
    "one": np.array([11]),
}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("has_room", [True, False])
@pytest.mark.parametrize("indices", INDICES.values(), ids=INDICES)
def test_a_gpu_sees_the_pixels_of_the_array(
    indices: np.ndarray,
    has_room: bool,
    layout: Literal["contiguous", "channels_last"],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The batches equal those of the CPU in every value and in their layout."""
    np.save(tmp_path / "pixels.npy", some_pixels())
    pixels = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    numerics = Numerics(layout=layout)
    treat_as_gpu(monkeypatch, has_room=has_room)
    source = PixelSource(pixels, indices, numerics)
    assert (resident_copy(pixels, source.device) is not None) is has_room
    count = len(indices)
    some = torch.randint(0, count, (2 * count,), generator=torch.Generator().manual_seed(0))
    for positions in (None, some, torch.arange(count).flip(0), some[:1]):
        rows = pixels[indices if positions is None else indices[positions.numpy()]]
        expected = torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 255
        batches = list(source.batches(positions, size=4))
        assert all(len(batch) <= 4 for batch in batches)
        assert torch.equal(torch.cat(batches), expected)
        memory = prediction.MEMORY_FORMATS[layout]
        assert all(batch.is_contiguous(memory_format=memory) for batch in batches)


@pytest.mark.parametrize("has_room", [True, False])
def test_a_training_is_the_same_wherever_its_pixels_are(
    has_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bitwise: its losses, the weights, and predictions from images and from larger copies."""
    expected, predicted = trained(own_images())
    treat_as_gpu(monkeypatch, has_room=has_room)
    images = own_images()
    weights, again = trained(images)
    assert images.large is not None
    for pixels in (images.images, images.large.pixels):
        assert (resident_copy(pixels, torch.device("cpu")) is not None) is has_room
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name
    np.testing.assert_array_equal(again, predicted)


def own_images() -> ImageSet:
    """Return arrays that nothing else refers to, so that their copies are freed with them."""
    images, _ = striped_images()
    size = images.image_size + 4
    pixels = np.random.default_rng(1).integers(0, 256, (len(images), size, size, 3), dtype=np.uint8)
    large = LargeCopies(pixels=pixels, aspects=np.ones(len(images), np.float32))
    return replace(images, images=images.images.copy(), large=large)


def trained(images: ImageSet) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Return weights and losses of a training, and its log-probabilities of val."""
    _, splits = striped_images()
    recipe = Recipe(width=3, epochs=2, batch_size=16, crop_scale=0.3, dropout=0.2)
    training = Training(
        recipe, rungs=(2,), seed=3, numerics=Numerics(), images=images, splits=splits
    )
    losses = [(report.train_loss, report.val_nll) for report in training.reports()]
    weights = training.scored_model().state_dict()
    return {**weights, "losses": torch.tensor(losses)}, training.log_probs(splits.val)


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
