"""Predictions: the same for any batch size, and from memory-mapped images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from quorum.testing.trainers import striped_images
from trainables.nets.build import build_model
from trainables.prediction import (
    PixelSource,
    apply_numerics,
    filling_batch,
    filling_size,
    model_batch,
    predict_log_probs,
)
from trainables.recipe import Numerics, Recipe

IMAGES, SPLITS = striped_images()


def test_predictions_depend_on_neither_batch_nor_memory_map(tmp_path: Path) -> None:
    model = build_model(
        Recipe(width=4), classes=3, image_size=8, train_images=IMAGES.images, seed=0
    )
    whole = predict_log_probs(model, IMAGES.images, Numerics())
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.exp(whole).sum(axis=1), 1, rtol=1e-5)
    np.save(tmp_path / "x.npy", IMAGES.images)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    chosen = np.array([3, 3, 80, 0])
    parts = predict_log_probs(model, mapped, Numerics(), indices=chosen, batch=3)
    np.testing.assert_allclose(parts, whole[chosen], atol=1e-5)
    numerics = Numerics(layout="contiguous", dtype="bfloat16")
    rough = predict_log_probs(model, IMAGES.images, numerics)
    np.testing.assert_allclose(rough, whole, atol=0.1)


def test_batches_cover_every_image_once_in_order() -> None:
    source = PixelSource(IMAGES.images, SPLITS.val, Numerics())
    batches = list(source.batches(size=10))
    assert [len(images) for images in batches] == [8, 8, 6]
    expected = torch.from_numpy(IMAGES.images[SPLITS.val]).permute(0, 3, 1, 2) / 255
    assert torch.equal(torch.cat(batches), expected)


class FewAtATime(nn.Module):
    """Runs out of memory for more than a few images."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error = most, error
        self.sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise self.error
        return images.flatten(1)[:, :3]


OUT_OF_MEMORY = (
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_predictions_that_ran_out_of_memory_are_made_in_smaller_batches(error: Exception) -> None:
    model = FewAtATime(5, error)
    images = IMAGES.images[:30]
    logits = predict_log_probs(model, images, Numerics(), batch=20)
    expected = predict_log_probs(FewAtATime(100, error), images, Numerics(), batch=30)
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    assert model.sizes[:3] == [15, 10, 5]
    with pytest.raises(type(error)):
        predict_log_probs(FewAtATime(0, error), images, Numerics())
    with pytest.raises(RuntimeError, match="another reason"):
        predict_log_probs(FewAtATime(5, RuntimeError("another reason")), images, Numerics())


@given(size=st.integers(1, 1024), side=st.integers(8, 512), free=st.integers(0, 2**40))
def test_a_batch_fills_a_gpu_within_bounds(size: int, side: int, free: int) -> None:
    chosen = filling_size(size, side=side, free_bytes=free)
    assert size <= chosen <= 16 * size
    assert chosen == size or chosen * side**2 * 2048 <= free / 2
    assert chosen <= filling_size(size, side=side, free_bytes=2 * free)


def test_on_the_cpu_a_batch_is_not_filled() -> None:
    source = PixelSource(IMAGES.images, SPLITS.val, Numerics())
    model = nn.Linear(1, 1)
    assert filling_batch(model, source) == model_batch(model, source)


@pytest.mark.parametrize(("device", "chosen"), [("cpu", False), ("cuda", True), ("cuda:1", True)])
def test_cudnn_times_its_algorithms_on_cuda(device: str, chosen: bool) -> None:
    before = torch.backends.cudnn.benchmark
    try:
        torch.backends.cudnn.benchmark = False
        apply_numerics(Numerics(device=device, threads=torch.get_num_threads()))
        assert torch.backends.cudnn.benchmark is chosen
    finally:
        torch.backends.cudnn.benchmark = before
