"""Policies draw operations per image, and their strength grows with the magnitude."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from common.errors import SpecError
from common.seeds import torch_generator
from search.space.space import Space
from tests.waits import META, counted_copies, no_waits
from trainables.augmentation.batch import augment
from trainables.augmentation.policies import (
    OPERATIONS,
    RANDAUGMENT,
    STANDARD,
    WIDE,
    Ranges,
    apply_by_group,
    apply_policy,
    apply_to_all,
    draw_operations,
    jitter_colour,
    jitter_shape,
    rand_augment,
)
from trainables.recipe import Recipe

FALSE_ALARM = 1e-3
"""Probability that a test of a distribution fails for a correct program and a new seed."""
SEARCHED = ("colour", "affine", "randaugment")


def some_images(count: int = 64, size: int = 16) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch_generator(0, "images"))


def distance(images: Tensor, policy: str, magnitude: float) -> float:
    recipe = Recipe.from_mapping({"augment": policy, "augment_magnitude": magnitude})
    after = apply_policy(images, recipe.augmentation, torch_generator(0, "p"))
    return float((after - images).abs().mean())


@pytest.mark.parametrize("policy", SEARCHED)
def test_strength_grows_from_zero_with_the_magnitude(policy: str) -> None:
    images = some_images(256)
    changes = [distance(images, policy, magnitude) for magnitude in (0, 5, 15, 30)]
    # RandAugment's autocontrast and equalize have no magnitude.
    assert changes[0] < (0.02 if policy == "randaugment" else 1e-6)
    assert changes == sorted(changes)
    assert changes[-1] > 0.05


def test_operations_and_directions_are_uniform() -> None:
    images = torch.zeros(14_000, 3, 1, 1)
    operations, signs = draw_operations(images, torch_generator(0, "draws"))
    counts = torch.bincount(operations, minlength=len(OPERATIONS)).numpy()
    assert stats.chisquare(counts).pvalue > FALSE_ALARM
    assert stats.binomtest(int((signs > 0).sum()), len(images), 0.5).pvalue > FALSE_ALARM
    assert set(signs.tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("policy", [*SEARCHED, "trivialaugment", "trivialaugment_wide"])
def test_identical_images_get_different_but_reproducible_draws(policy: str) -> None:
    images = some_images(1, size=24).expand(64, -1, -1, -1).contiguous()
    recipe = Recipe.from_mapping({"augment": policy})
    first, again = (
        apply_policy(images, recipe.augmentation, torch_generator(3, "p")) for _ in range(2)
    )
    assert torch.equal(first, again)
    assert len({image.numpy().tobytes() for image in first}) > 25
    assert bool(((first >= 0) & (first <= 1)).all())


def test_more_operations_change_more() -> None:
    images = some_images(256)
    changes = [
        float((rand_augment(images, ops, 0.5, torch_generator(0, "r")) - images).abs().mean())
        for ops in (1, 2, 4)
    ]
    assert changes == sorted(changes)


def test_a_black_image_stays_black_and_grey_stays_grey() -> None:
    black, grey = torch.zeros(32, 3, 8, 8), some_images(32)[:, :1].expand(-1, 3, -1, -1)
    assert float(jitter_colour(black, 1.0, torch_generator(0, "c")).abs().max()) == 0
    jittered = jitter_colour(grey.contiguous(), 1.0, torch_generator(0, "c"))
    np.testing.assert_allclose(jittered.amax(dim=1), jittered.amin(dim=1), atol=1e-5)
    constant = torch.full((32, 3, 8, 8), 0.25)
    np.testing.assert_allclose(
        jitter_shape(constant, 1.0, torch_generator(0, "s")), 0.25, atol=1e-6
    )


@pytest.mark.parametrize("ranges", [STANDARD, WIDE, RANDAUGMENT], ids=["plain", "wide", "rand"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [2, 9, 16])
def test_operations_on_all_images_equal_those_on_groups(
    ranges: Ranges, layout: torch.memory_format, size: int
) -> None:
    """A GPU's way, which never waits, gives what the CPU's gives, however images are grouped."""
    images = (some_images(97, size) * 255).round() / 255
    images = images.contiguous(memory_format=layout)
    generator = torch_generator(size, "groups")
    for count in (len(OPERATIONS), 3, 1):  # not every operation is drawn
        operations = torch.randint(count, (97,), generator=generator)
        signs = 2.0 * torch.randint(2, (97,), generator=generator) - 1
        levels = torch.randint(31, (97,), generator=generator) / 30
        grouped, everywhere = (
            apply(images, operations, signs, levels, ranges)
            for apply in (apply_by_group, apply_to_all)
        )
        torch.testing.assert_close(everywhere, grouped, rtol=0, atol=1e-6)
        assert everywhere.stride() == grouped.stride()


@pytest.mark.parametrize("policy", [*SEARCHED, "trivialaugment", "trivialaugment_wide", "standard"])
def test_augmentation_never_waits_for_the_device(policy: str) -> None:
    recipe = Recipe(
        augment=policy, flip=True, translate=2, cutout=3, erase_probability=0.5, crop_scale=0.5,
        mixup_alpha=0.4, cutmix_alpha=1.0,
    )  # fmt: skip
    images = torch.empty(5, 3, 16, 16, device=META)
    labels, mean = torch.empty(5, dtype=torch.int64, device=META), torch.empty(3, device=META)

    def augmented() -> Tensor:
        generator = torch_generator(0, "a", device=META)
        return augment(images, labels, recipe.augmentation, mean=mean, generator=generator).images

    with counted_copies():
        augmented()  # copies constants
    with no_waits():
        assert augmented().shape == images.shape


SPACE: dict[str, dict[str, Any]] = {
    "augment": {"type": "categorical", "choices": ["none", "standard", "affine", "randaugment"]},
    "augment_magnitude": {
        "type": "float", "low": 3.0, "high": 15.0, "when": {"augment": ["affine", "randaugment"]},
    },
    "augment_ops": {"type": "int", "low": 1, "high": 3, "when": {"augment": "randaugment"}},
}  # fmt: skip


class Fixed:
    """Suggests a fixed policy and the lowest value of every number."""

    def __init__(self, policy: str) -> None:
        self.policy = policy

    def suggest_categorical(self, name: str, choices: object) -> str:
        return self.policy

    def suggest_float(self, name: str, low: float, *rest: object, **more: object) -> float:
        return low

    def suggest_int(self, name: str, low: int, *rest: object, **more: object) -> int:
        return low


def test_the_magnitude_is_searched_only_for_policies_that_have_one() -> None:
    space = Space.from_mapping(SPACE, base=Recipe())
    drawn = {name: space.suggest(Fixed(name)) for name in ("none", "affine", "randaugment")}
    assert drawn["none"] == {"augment": "none"}
    assert drawn["affine"] == {"augment": "affine", "augment_magnitude": 3.0}
    assert set(drawn["randaugment"]) == {"augment", "augment_magnitude", "augment_ops"}
    assert all(space.contains(values) for values in drawn.values())
    wrong = {**SPACE, "augment_ops": {**SPACE["augment_ops"], "when": {"augment": "colour"}}}
    with pytest.raises(SpecError, match="requires augment = 'colour'"):
        Space.from_mapping(wrong, base=Recipe())
