"""Transforms agree with loops over images, and draws follow their distributions."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from common.errors import SpecError
from common.seeds import torch_generator
from trainables.augmentation.batch import (
    augment,
    cutout,
    draw_beta,
    draw_boxes,
    draw_corners,
    draw_flips,
    draw_rectangles,
    draw_shifts,
    mix,
    shift_and_flip,
)
from trainables.augmentation.policies import apply_policy
from trainables.recipe import Recipe

MEAN = torch.tensor([0.1, 0.5, 0.9])
FULL = Recipe(flip=True, translate=3, cutout=4, mixup_alpha=0.4, cutmix_alpha=1.0)
POLICIES = ("colour", "affine", "trivialaugment", "trivialaugment_wide", "randaugment")
GOLDEN = "c33c2d8896d7162a"
FALSE_ALARM = 1e-3
"""Probability that a test of a distribution fails for a correct program and a new seed."""


def some_images(count: int = 16, size: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch_generator(seed, "images"))


def shift_and_flip_oracle(images: Tensor, shifts: Tensor, flips: Tensor) -> Tensor:
    result = torch.empty_like(images)
    for i, image in enumerate(images.numpy()):
        down, right = shifts[i].tolist()
        mirrored = image[:, :, ::-1] if flips[i] else image
        pad = max(abs(down), abs(right))
        padded = np.pad(mirrored, ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
        rows, columns = pad - down, pad - right
        size = image.shape[-1]
        result[i] = torch.from_numpy(padded[:, rows : rows + size, columns : columns + size].copy())
    return result


@given(
    size=st.integers(2, 9),
    translate=st.integers(0, 20),
    flip=st.booleans(),
    seed=st.integers(0, 99),
)
def test_shift_and_flip_equals_a_loop_over_images(
    size: int, translate: int, flip: bool, seed: int
) -> None:
    generator = torch_generator(seed, "draws")
    images = some_images(count=5, size=size, seed=seed)
    shifts = draw_shifts(images, translate, generator)
    flips = draw_flips(images, flip, generator)
    expected = shift_and_flip_oracle(images, shifts, flips)
    assert torch.equal(shift_and_flip(images, shifts=shifts, flips=flips), expected)
    last = images.contiguous(memory_format=torch.channels_last)
    moved = shift_and_flip(last, shifts=shifts, flips=flips)
    assert torch.equal(moved, expected)
    assert moved.stride() == last.stride()


def test_flipping_twice_without_shifts_is_the_identity() -> None:
    images = some_images()
    still, all_flipped = torch.zeros(16, 2, dtype=torch.int64), torch.ones(16, dtype=torch.bool)
    once = shift_and_flip(images, shifts=still, flips=all_flipped)
    assert torch.equal(once, images.flip(3))
    assert torch.equal(shift_and_flip(once, shifts=still, flips=all_flipped), images)
    assert torch.equal(shift_and_flip(images, shifts=still, flips=~all_flipped), images)


def test_flips_passed_as_an_argument_are_applied() -> None:
    images, labels = some_images(), torch.arange(16)
    flips = torch.arange(16) % 3 == 0
    recipe = Recipe(flip=True, translate=0)
    batch = augment(
        images,
        labels,
        recipe.augmentation,
        mean=MEAN,
        generator=torch_generator(0, "draws"),
        flips=flips,
    )
    assert torch.equal(
        batch.images, torch.where(flips[:, None, None, None], images.flip(3), images)
    )


@given(size=st.integers(3, 10), seed=st.integers(0, 99), data=st.data())
def test_cutout_equals_a_loop_over_images(size: int, seed: int, data: st.DataObject) -> None:
    side = data.draw(st.integers(1, size - 1))
    images = some_images(count=6, size=size, seed=seed)
    corners = draw_corners(images, side, torch_generator(seed, "draws"))
    expected = images.clone()
    for image, (row, column) in zip(expected, corners.tolist(), strict=True):
        assert 0 <= row <= size - side
        assert 0 <= column <= size - side
        image[:, row : row + side, column : column + side] = MEAN[:, None, None]
    assert torch.equal(cutout(images, corners, side, MEAN), expected)


def test_cutout_as_large_as_the_image_is_refused() -> None:
    with pytest.raises(SpecError, match=r"cutout must be less than .* 12 px, got 12"):
        draw_corners(some_images(), 12, torch_generator(0, "draws"))


def mixed_oracle(image: Tensor, other: Tensor, share: float) -> Tensor:
    return share * image + (1 - share) * other


def test_mixup_equals_a_loop_over_images() -> None:
    images, names = some_images(64), torch.arange(64)
    recipe = Recipe(mixup_alpha=0.8, mix_probability=0.7)
    batch = mix(images, names, recipe.augmentation, generator=torch_generator(3, "mix"))
    for i in range(64):
        share, other = float(batch.share[i]), images[batch.labels_b[i]]
        expected = mixed_oracle(images[i], other, share)
        np.testing.assert_allclose(batch.images[i], expected, atol=1e-6)
        assert share < 1 or torch.equal(batch.images[i], images[i])
    assert 0 < (batch.share == 1).sum() < 64
    assert torch.equal(batch.labels_a, names)
    assert sorted(batch.labels_b.tolist()) == names.tolist()


def test_cutmix_replaces_one_rectangle_and_shares_labels_by_area() -> None:
    images, names = some_images(64), torch.arange(64)
    recipe = Recipe(cutmix_alpha=1.0, mix_probability=1.0)
    batch = mix(images, names, recipe.augmentation, generator=torch_generator(4, "mix"))
    for i in range(64):
        foreign = (batch.images[i] != images[i]).any(dim=0)
        if batch.labels_b[i] == i or not foreign.any():
            continue
        rows, columns = foreign.any(dim=1).nonzero(), foreign.any(dim=0).nonzero()
        box = foreign[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all()
        assert torch.equal(batch.images[i][:, foreign], images[batch.labels_b[i]][:, foreign])
        assert float(batch.share[i]) == pytest.approx(1 - foreign.float().mean().item(), abs=1e-6)
    assert len(set(batch.share.tolist())) > 20


def test_with_mixup_and_cutmix_each_mixed_image_is_one_or_the_other() -> None:
    images, names = some_images(2000, size=8), torch.arange(2000)
    recipe = Recipe(mixup_alpha=1.0, cutmix_alpha=1.0, mix_probability=0.6)
    batch = mix(images, names, recipe.augmentation, generator=torch_generator(5, "mix"))
    own = (batch.images == images).all(dim=1).flatten(1).float().mean(dim=1)
    untouched = batch.share == 1
    blended = (own == 0) & ~untouched & (batch.share > 0)
    pasted = ~blended & ~untouched
    np.testing.assert_allclose(own[pasted], batch.share[pasted], atol=1e-6)
    # 5 standard deviations of each count; a CutMix box may be empty, which counts as untouched.
    assert int(blended.sum()) == pytest.approx(600, abs=5 * 20.5)
    assert int(pasted.sum()) == pytest.approx(600, abs=5 * 20.5)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    draws = draw_beta(
        some_images(1, size=2).expand(4000, -1, -1, -1), alpha, torch_generator(0, "b")
    )
    assert bool(((draws >= 0) & (draws <= 1)).all())
    # At 0.01 float32 rounds most draws to 0 or 1, so only the middle is compared.
    thresholds = np.array([0.05, 0.2, 0.5, 0.8, 0.95])
    counts = (draws.numpy()[:, None] <= thresholds).sum(axis=0)
    expected = stats.beta(alpha, alpha).cdf(thresholds)
    p_values = [
        stats.binomtest(int(k), 4000, p).pvalue for k, p in zip(counts, expected, strict=True)
    ]
    assert min(p_values) > FALSE_ALARM / len(thresholds)


def test_shifts_and_flips_are_uniform_and_differ_between_images() -> None:
    images = some_images(1, size=4).expand(5000, -1, -1, -1)
    generator = torch_generator(1, "draws")
    shifts = draw_shifts(images, 2, generator)
    for axis in (0, 1):
        counts = torch.bincount(shifts[:, axis] + 2, minlength=5).numpy()
        assert stats.chisquare(counts).pvalue > FALSE_ALARM
    assert abs(np.corrcoef(shifts.numpy().T)[0, 1]) < 5 / np.sqrt(5000)
    flips = int(draw_flips(images, True, generator).sum())
    assert stats.binomtest(flips, 5000, 0.5).pvalue > FALSE_ALARM


@given(seed=st.integers(0, 500), alpha=st.floats(0.05, 3.0))
def test_boxes_are_inside_the_image(seed: int, alpha: float) -> None:
    low, high = draw_boxes(some_images(30, size=9), alpha, torch_generator(seed, "box"))
    assert bool(((low >= 0) & (low <= high) & (high <= 9)).all())


@given(seed=st.integers(0, 500), smooth=st.booleans())
def test_the_same_generator_state_gives_the_same_batch(seed: int, smooth: bool) -> None:
    images, labels = some_images(), torch.arange(16)
    if smooth:
        images = images.contiguous(memory_format=torch.channels_last)
    first, again = (
        augment(images, labels, FULL.augmentation, mean=MEAN, generator=torch_generator(seed, "a"))
        for _ in range(2)
    )
    other = augment(
        images, labels, FULL.augmentation, mean=MEAN, generator=torch_generator(seed + 1, "a")
    )
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.share, again.share)
    assert not torch.equal(first.images, other.images)
    assert bool(((first.share >= 0) & (first.share <= 1)).all())
    assert bool(((first.images >= 0) & (first.images <= 1)).all())
    assert first.images.stride() == images.stride()


def test_a_policy_without_changes_returns_the_images() -> None:
    images, labels = some_images(), torch.arange(16)
    recipe = Recipe(flip=False, translate=0)
    batch = augment(
        images, labels, recipe.augmentation, mean=MEAN, generator=torch_generator(0, "a")
    )
    assert torch.equal(batch.images, images)
    assert torch.equal(batch.labels_b, labels)
    assert bool((batch.share == 1).all())


def test_identical_images_are_augmented_differently() -> None:
    images = some_images(1).expand(16, -1, -1, -1).contiguous()
    recipe = Recipe(flip=True, translate=2)
    batch = augment(
        images,
        torch.zeros(16).long(),
        recipe.augmentation,
        mean=MEAN,
        generator=torch_generator(0, "a"),
    )
    assert len({image.numpy().tobytes() for image in batch.images}) > 10


def test_the_standard_policys_draws_are_golden() -> None:
    """This code made the digest at commit 1bf5e60, before other policies existed."""
    recipe = Recipe(flip=True, translate=3, cutout=4, cutmix_alpha=1.0, mix_probability=0.5)
    batch = augment(
        some_images(),
        torch.arange(16),
        recipe.augmentation,
        mean=MEAN,
        generator=torch_generator(5, "golden"),
    )
    digest = hashlib.sha256(batch.images.numpy().tobytes())
    digest.update(batch.labels_b.numpy().tobytes())
    assert digest.hexdigest()[:16] == GOLDEN


def test_policy_none_changes_nothing_and_draws_nothing() -> None:
    images, labels = some_images(), torch.arange(16)
    recipe = FULL.with_values(augment="none", erase_probability=1.0)
    generator = torch_generator(0, "a")
    batch = augment(images, labels, recipe.augmentation, mean=MEAN, generator=generator)
    assert torch.equal(batch.images, images)
    assert torch.equal(batch.labels_b, labels)
    assert bool((batch.share == 1).all())
    assert torch.equal(generator.get_state(), torch_generator(0, "a").get_state())


@pytest.mark.parametrize("policy", POLICIES)
def test_other_policies_run_before_the_standard_one(policy: str) -> None:
    images, labels = some_images(size=16), torch.arange(16)
    images = images.contiguous(memory_format=torch.channels_last)
    recipe = FULL.with_values(augment=policy)
    generator = torch_generator(7, "a")
    batch = augment(images, labels, recipe.augmentation, mean=MEAN, generator=generator)
    again = torch_generator(7, "a")
    changed = apply_policy(images, recipe.augmentation, again)
    standard = recipe.with_values(augment="standard")
    expected = augment(changed, labels, standard.augmentation, mean=MEAN, generator=again)
    assert torch.equal(batch.images, expected.images)
    assert batch.images.stride() == images.stride()
    assert not torch.equal(changed, images)


@given(size=st.integers(2, 12), seed=st.integers(0, 99))
def test_rectangles_are_inside_and_have_the_stated_areas(size: int, seed: int) -> None:
    images = some_images(200, size=size)
    low, high = draw_rectangles(images, 0.5, torch_generator(seed, "erase"))
    assert bool(((low >= 0) & (low <= high) & (high <= size)).all())
    area = (high - low).prod(dim=1) / size**2
    # Each side is rounded by half a pixel at most.
    assert float(area.max()) <= 1 / 3 + 1 / size + 1 / (4 * size**2)
    assert stats.binomtest(int((area > 0).sum()), 200, 0.5).pvalue > FALSE_ALARM or size < 8


def test_erased_images_have_one_rectangle_of_the_given_colour() -> None:
    images = some_images(100, size=16)
    recipe = Recipe(flip=False, translate=0, erase_probability=0.6)
    batch = augment(
        images, torch.arange(100), recipe.augmentation, mean=MEAN, generator=torch_generator(0, "e")
    )
    changed = (batch.images != images).any(dim=1)
    assert 40 < int(changed.flatten(1).any(dim=1).sum()) < 80
    for image, mask in zip(batch.images, changed, strict=True):
        rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
        if len(rows):
            assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert bool((image[:, mask] == MEAN[:, None]).all())
