"""Statistics of images in chunks: equal to those of all images at once, in bounded memory."""

import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.nets import build
from trainables.nets.build import build_model
from trainables.nets.convnet import ConvNet
from trainables.nets.image_statistics import (
    CHUNK_VALUES,
    kept,
    mean_and_std,
    patch_covariance,
    pixel_chunks,
)
from trainables.recipe import Recipe

Pixels = npt.NDArray[np.uint8]


def some_pixels(count: int, size: int, *, channels: int = 3, seed: int = 0) -> Pixels:
    """Return smooth images, so that the values of a patch are correlated."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 3, 3, channels))
    enlarged = coarse.repeat(-(-size // 3), axis=1).repeat(-(-size // 3), axis=2)
    noise = rng.integers(-20, 21, (count, size, size, channels))
    pixels: Pixels = np.clip(enlarged[:, :size, :size] + noise, 0, 255).astype(np.uint8)
    return pixels


def cut(pixels: Pixels, sizes: list[int]) -> list[Pixels]:
    return [part for part in np.split(pixels, np.cumsum(sizes)) if len(part)]


@given(
    sizes=st.lists(st.integers(0, 5), max_size=5),
    channels=st.sampled_from([1, 3, 5]),
    seed=st.integers(0, 99),
)
def test_moments_equal_those_of_all_pixels_however_they_are_cut(
    sizes: list[int], channels: int, seed: int
) -> None:
    pixels = some_pixels(9, 6, channels=channels, seed=seed)
    mean, std = mean_and_std(cut(pixels, sizes))
    values = pixels.reshape(-1, channels).astype(np.float64) / 255
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, values.std(axis=0), rtol=1e-6)
    for one, other in zip((mean, std), mean_and_std([pixels]), strict=True):
        assert torch.equal(one, other), "exact, so the cut makes no difference at all"


@given(sizes=st.lists(st.integers(0, 5), max_size=5), seed=st.integers(0, 99))
def test_covariance_of_patches_equals_a_loop_over_them(sizes: list[int], seed: int) -> None:
    pixels = some_pixels(9, 5, seed=seed)
    images = [
        torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255 - 0.4
        for part in cut(pixels, sizes)
    ]
    rows = np.array(
        [
            image[:, row : row + 2, column : column + 2].ravel()
            for image in torch.cat(images).double().numpy()
            for row in range(4)
            for column in range(4)
        ]
    )
    np.testing.assert_allclose(patch_covariance(images), rows.T @ rows / len(rows), rtol=1e-10)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("count", "side"), [(1, 2), (7, 9), (113, 32), (3, 224)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_covariance_is_bitwise_that_of_unfolded_images(
    channels: int, count: int, side: int, layout: torch.memory_format
) -> None:
    """The rows are those of `unfold`, in the same order: earlier runs are replayed bitwise."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randn(count, channels, side, side, generator=generator)
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5)
    rows = patches.reshape(-1, 4 * channels).double()
    covariance = patch_covariance([images.contiguous(memory_format=layout)])
    assert torch.equal(covariance, rows.T @ rows / len(rows))


class Counted:
    """Counts the calls of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.calls = 0
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        return self._function(*arguments)


def test_networks_of_the_same_images_share_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the array; other pixels, sizes and numbers of threads have their own."""
    moments, covariances = Counted(mean_and_std), Counted(patch_covariance)
    monkeypatch.setattr(build, "mean_and_std", moments)
    monkeypatch.setattr(build, "patch_covariance", covariances)
    pixels = some_pixels(40, 12, seed=171)

    def state(images: Pixels, **values: Any) -> dict[str, torch.Tensor]:
        recipe = Recipe(**{"width": 2, **values})
        net = build_model(recipe, classes=3, image_size=12, train_images=images, seed=0)
        return dict(net.state_dict())

    first, again = state(pixels), state(pixels.copy(), depth=2)
    assert (moments.calls, covariances.calls) == (1, 1)
    for name in ("mean", "std", "net.whitening.weight"):
        assert torch.equal(first[name], again[name]), name
    state(pixels, input_size=16)
    assert (moments.calls, covariances.calls) == (1, 2)
    other = pixels.copy()
    other[7, 3, 2, 1] ^= 1
    assert not torch.equal(state(other)["net.whitening.weight"], first["net.whitening.weight"])
    state(pixels, whitening=False)
    assert (moments.calls, covariances.calls) == (2, 3)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        state(pixels)
    finally:
        torch.set_num_threads(threads)
    assert (moments.calls, covariances.calls) == (2, 4)


def test_few_results_are_kept_and_failures_are_not() -> None:
    calls = Counted(lambda: torch.zeros(1))
    for index in range(1000):
        kept(("many", index), calls)
    kept(("many", 999), calls)
    assert calls.calls == 1000
    kept(("many", 0), calls)
    assert calls.calls == 1001

    def fail() -> None:
        raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            kept("failing", fail)


def test_no_images_have_no_statistics() -> None:
    with pytest.raises(ValueError, match="no images"):
        mean_and_std([])


@pytest.mark.parametrize("side", [16, 224, 1100], ids=["many a chunk", "few", "one, too large"])
def test_chunks_hold_every_image_once_and_few_values(side: int) -> None:
    images = np.zeros((6, side, side, 3), dtype=np.uint8)
    images[:] = np.arange(6, dtype=np.uint8)[:, None, None, None]
    chunks = list(pixel_chunks(images, np.array([5, 0, 3])))
    assert [int(image[0, 0, 0]) for chunk in chunks for image in chunk] == [5, 0, 3]
    assert all(chunk.size <= max(CHUNK_VALUES, images[0].size) for chunk in chunks)


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """NumPy's arrays are traced; the network of 40 MB of images may take a fraction of that."""
    mapped = np.lib.format.open_memmap(
        tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=(270, 224, 224, 3)
    )
    mapped[::7] = 200
    tracemalloc.start()
    try:
        build_model(Recipe(width=2), classes=3, image_size=224, train_images=mapped, seed=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert mapped.nbytes > 40e6
    assert peak < 16 * CHUNK_VALUES


def test_a_network_uses_the_statistics_of_its_training_images_only() -> None:
    """Whitening and normalization of a part of the images, at any chunk, equal those of a copy."""
    pixels, part = some_pixels(40, 64, seed=3), np.arange(1, 40, 3)
    net_of = partial(build_model, Recipe(width=4), classes=3, image_size=64, seed=0)
    here = net_of(train_images=pixels, train_indices=part)
    copy = net_of(train_images=pixels[part].copy())
    assert isinstance(here.net, ConvNet)
    for name, value in copy.state_dict().items():
        assert torch.equal(here.state_dict()[name], value), name
    values = pixels[part].reshape(-1, 3) / 255
    np.testing.assert_allclose(here.mean, values.mean(axis=0), rtol=1e-6)
