"""Draw augmentation operations and strengths per image, by policy.

Axes: B images, 3 channels, S×S pixels. Images are float [B, 3, S, S] in [0, 1].

    policy                 every image gets                          strength
    colour                 brightness, contrast, saturation, hue     uniform up to augment_magnitude
    affine                 rotation, zoom, shear                     uniform up to augment_magnitude
    trivialaugment[_wide]  1 of 14 operations                        uniform, 31 levels
    randaugment            augment_ops of 14 operations, in turn     augment_magnitude

TrivialAugment is by Müller & Hutter (2021), RandAugment by Cubuk et al. (2020); both have the
same 14 operations. On the CPU, images are grouped by operation, so that an operation runs only on
the images that drew it. On a GPU, the sizes of the groups would have to be read back, which waits
for the device seven times a round; so every operation runs on all images.

Differences from the publications: shifts grow with the image (the published ones are for 32 px),
and RandAugment's enhancement factors go to either side of 1, as in torchvision, so that a higher
magnitude is always stronger (the original goes from 0.1 to 1.9).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from trainables.augmentation.constants import constant_like
from trainables.augmentation.operations import (
    affine_maps,
    autocontrast,
    colour_matrices,
    equalize,
    hue_matrices,
    posterize,
    recolour,
    sharpen,
    solarize,
    warp,
)
from trainables.hyperparameters import Augmentation

OPERATIONS = (
    "identity", "autocontrast", "equalize", "rotate", "solarize", "colour", "posterize",
    "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y",
)  # fmt: skip

LEVELS = 31
"""Number of strengths; magnitudes go from 0 to 30."""

MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
ENHANCEMENTS = ("colour", "contrast", "brightness")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """Strength of the operations at the highest level."""

    shear: float
    """Tangent of the angle."""
    translate: float
    """Share of the image's side."""
    rotate: float
    """Degrees."""
    lost_bits: int
    """Number of a channel's eight bits that `posterize` drops."""
    enhance: tuple[float, float]
    """Factors at the lowest and highest level."""
    mirrored: bool = False
    """True if enhancement factors start at 1 and go up or down at random."""


STANDARD = Ranges(shear=0.3, translate=10 / 32, rotate=30.0, lost_bits=4, enhance=(0.1, 1.9))
WIDE = Ranges(shear=0.99, translate=1.0, rotate=135.0, lost_bits=6, enhance=(0.01, 2.0))
RANDAUGMENT = Ranges(
    shear=0.3, translate=0.45, rotate=30.0, lost_bits=4, enhance=(1.0, 1.9), mirrored=True
)

COLOUR = (0.9, 0.9, 0.9, 60.0)
"""Largest change of brightness, contrast and saturation (as factors), and of hue (degrees)."""
AFFINE = (30.0, 1.5, 0.3)
"""Largest rotation (degrees), zoom (factor) and shear (tangent)."""


def apply_policy(images: Tensor, augmentation: Augmentation, generator: Generator) -> Tensor:
    """Apply `augmentation.policy`; `none` and `standard` return the images unchanged."""
    magnitude = augmentation.magnitude / (LEVELS - 1)
    match augmentation.policy:
        case "colour":
            return jitter_colour(images, magnitude, generator)
        case "affine":
            return jitter_shape(images, magnitude, generator)
        case "trivialaugment":
            return trivial_augment(images, STANDARD, generator)
        case "trivialaugment_wide":
            return trivial_augment(images, WIDE, generator)
        case "randaugment":
            return rand_augment(images, augmentation.operations, magnitude, generator)
    return images


def jitter_colour(images: Tensor, magnitude: float, generator: Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue, with one matrix per image.

    In contrast to torchvision's ColorJitter, the order is fixed, values are not clipped between
    the steps, and the hue is rotated linearly.
    """
    draws = _uniform(4, images, generator) * magnitude
    factors = 1 + draws[:3] * _column(COLOUR[:3], images)
    matrices = colour_matrices(
        images, brightness=factors[0], contrast=factors[1], saturation=factors[2]
    )
    return recolour(images, hue_matrices(draws[3] * COLOUR[3]) @ matrices)


def jitter_shape(images: Tensor, magnitude: float, generator: Generator) -> Tensor:
    """Rotate, zoom and shear about the centre; sample bilinearly, with reflected borders."""
    degrees, zoom, *shears = _uniform(4, images, generator) * magnitude
    rotate, scale, shear = AFFINE
    thetas = affine_maps(
        degrees=degrees * rotate, scales=scale**zoom, shears=torch.stack(shears, dim=1) * shear
    )
    return warp(images, thetas)


def trivial_augment(images: Tensor, ranges: Ranges, generator: Generator) -> Tensor:
    """Apply one operation at one level to each image; all 14 × 31 pairs are equally likely."""
    levels = torch.randint(LEVELS, (len(images),), generator=generator, device=images.device)
    return apply_operations(
        images, *draw_operations(images, generator), levels / (LEVELS - 1), ranges
    )


def rand_augment(images: Tensor, ops: int, magnitude: float, generator: Generator) -> Tensor:
    """Apply `ops` operations in turn to each image, at `magnitude` in [0, 1] of their ranges."""
    levels = torch.full((len(images),), magnitude, device=images.device)
    for _ in range(ops):
        operations, signs = draw_operations(images, generator)
        images = apply_operations(images, operations, signs, levels, RANDAUGMENT)
    return images


def draw_operations(images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw indices into OPERATIONS, int64 [B], and directions, −1 or 1, float32 [B]."""
    count, device = len(images), images.device
    operations = torch.randint(len(OPERATIONS), (count,), generator=generator, device=device)
    signs = torch.randint(2, (count,), generator=generator, device=device)
    return operations, 2.0 * signs - 1.0


def apply_operations(
    images: Tensor, operations: Tensor, signs: Tensor, levels: Tensor, ranges: Ranges
) -> Tensor:
    """Apply its own operation to each image, at its level in [0, 1] and in its direction.

    `operations` (int64), `signs` (−1 or 1) and `levels` are [B]. As in the original, pixels,
    degrees, bits and grey levels are rounded towards no change, moved images are sampled at the
    nearest pixel, and positions outside the image are black.
    """
    apply = apply_by_group if images.device.type == "cpu" else apply_to_all
    return apply(images, operations, signs, levels, ranges)


def apply_by_group(
    images: Tensor, operations: Tensor, signs: Tensor, levels: Tensor, ranges: Ranges
) -> Tensor:
    """Apply each operation to the images that drew it; waits for the device."""
    result = images.clone()
    for names, operation in _GROUPS:
        chosen = _drew(names, operations).nonzero()[:, 0]
        if len(chosen):
            drawn = _DrawnOperations(operations[chosen], signs[chosen], levels[chosen], ranges)
            result[chosen] = operation(images[chosen], drawn)
    return result


def apply_to_all(
    images: Tensor, operations: Tensor, signs: Tensor, levels: Tensor, ranges: Ranges
) -> Tensor:
    """Apply each operation to all images and keep the results of those that drew it."""
    result = images
    drawn = _DrawnOperations(operations, signs, levels, ranges)
    for names, operation in _GROUPS:
        chosen = _drew(names, operations)[:, None, None, None]
        result = torch.where(chosen, operation(images, drawn), result)
    return result


@dataclass(frozen=True, slots=True)
class _DrawnOperations:
    """The operations, directions and levels of a group of images, [B] each."""

    operations: Tensor
    signs: Tensor
    levels: Tensor
    ranges: Ranges

    def where(self, name: str) -> Tensor:
        """Return 1 for images with the operation `name`, 0 for the others."""
        return (self.operations == OPERATIONS.index(name)).float()

    def factors(self) -> Tensor:
        """Return the enhancement factor of each image, [B]."""
        low, high = self.ranges.enhance
        if self.ranges.mirrored:
            return 1 + self.signs * (high - 1) * self.levels
        return low + (high - low) * self.levels

    def steps(self, highest: float) -> Tensor:
        """Return ⌊level · highest⌋, [B]."""
        # Rounding can leave a product just below an integer; 1e-4 lifts it over.
        return (self.levels * highest + 1e-4).floor()


def _move(images: Tensor, drawn: _DrawnOperations) -> Tensor:
    """Rotate about the centre, shear about the upper left corner, or translate."""
    size = images.shape[-1]
    angles = (drawn.steps(drawn.ranges.rotate) * drawn.signs * drawn.where("rotate")).deg2rad()
    shear = drawn.levels * drawn.signs * drawn.ranges.shear
    shift = drawn.steps(drawn.ranges.translate * size) * drawn.signs * 2 / size
    shear_x, shear_y = shear * drawn.where("shear_x"), shear * drawn.where("shear_y")
    cos, sin = angles.cos(), angles.sin()
    rows = [
        torch.stack([cos, shear_x - sin, shear_x + shift * drawn.where("translate_x")], dim=1),
        torch.stack([shear_y + sin, cos, shear_y + shift * drawn.where("translate_y")], dim=1),
    ]
    return warp(images, torch.stack(rows, dim=1), mode="nearest", border="zeros")


def _enhance(images: Tensor, drawn: _DrawnOperations) -> Tensor:
    change = drawn.factors() - 1
    return recolour(
        images,
        colour_matrices(
            images,
            brightness=1 + change * drawn.where("brightness"),
            contrast=1 + change * drawn.where("contrast"),
            saturation=1 + change * drawn.where("colour"),
        ),
    )


_GROUPS: tuple[tuple[tuple[str, ...], Callable[[Tensor, _DrawnOperations], Tensor]], ...] = (
    (MOVES, _move),
    (ENHANCEMENTS, _enhance),
    (("autocontrast",), lambda images, _: autocontrast(images)),
    (("equalize",), lambda images, _: equalize(images)),
    (("solarize",), lambda images, drawn: solarize(images, 256 - drawn.steps(256))),
    (
        ("posterize",),
        lambda images, drawn: posterize(images, 8 - drawn.steps(drawn.ranges.lost_bits)),
    ),
    (("sharpness",), lambda images, drawn: sharpen(images, drawn.factors())),
)


def _drew(names: tuple[str, ...], operations: Tensor) -> Tensor:
    """Return which images drew one of the operations, bool [B]."""
    indices = tuple(OPERATIONS.index(name) for name in names)
    return torch.isin(operations, constant_like(indices, operations))


def _uniform(count: int, images: Tensor, generator: Generator) -> Tensor:
    """Draw from [−1, 1), float32 [count, B]."""
    return 2 * torch.rand(count, len(images), generator=generator, device=images.device) - 1


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return constant_like(values, like)[:, None]
