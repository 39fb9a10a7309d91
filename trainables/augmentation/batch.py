"""Augment a batch: random crop, policy, flip, translation, cutout, erasing, MixUp and CutMix.

Axes: B images, 3 channels, S×S pixels. Images are float [B, 3, S, S] in [0, 1]; their memory
format is kept. All random numbers come from the generator passed in, which is on the images'
device, so the same generator state gives the same batch.

No transform loops over images: a single gather flips and translates, and comparisons of
coordinates mark squares and boxes. random_crops.py cuts and resizes; policies.py draws the
operations that operations.py applies.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from common.errors import SpecError
from trainables.augmentation.constants import constant_like
from trainables.augmentation.operations import with_format_of
from trainables.augmentation.policies import apply_policy
from trainables.augmentation.random_crops import draw_crops, resample
from trainables.hyperparameters import Augmentation, length_in_pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Augmented images; each counts `share` for labels_a and 1 − `share` for labels_b."""

    images: Tensor
    """float [B, 3, S, S]"""
    labels_a: Tensor
    """int64 [B]"""
    labels_b: Tensor
    """int64 [B]"""
    share: Tensor
    """float32 [B] in [0, 1]; 1 for images that are not mixed."""
    rotations: Tensor | None = None
    """int64 [B]: quarter turns of the image's rotated copy, −1 for images without such a copy.
    None if the rotation task is off."""
    first_rotated: int = 0
    """Index of the first image with a rotated copy: 0 for a whole batch; a micro-batch may start
    between two such images."""


def augment(
    images: Tensor,
    labels: Tensor,
    augmentation: Augmentation,
    *,
    mean: Tensor,
    generator: Generator,
    flips: Tensor | None = None,
    aspects: Tensor | None = None,
    size: int | None = None,
) -> Batch:
    """Crop, apply the policy, then flip, translate, cut out, erase and mix.

    `labels` is int64 [B]; `mean` [3] is the colour of squares and rectangles. `flips`, bool [B],
    chooses the mirrored images; by default half of them are drawn, if flips are on. Random crops
    are resized to `size` pixels a side (the images' by default); `aspects` [B] are the ratios of
    width to height that the images stand for (1 by default), see random_crops.py. Without random
    crops, the images already have the training size.

    Raises:
        SpecError: the cutout square is as large as the image.
    """
    if augmentation.policy == "none":
        return _unmixed(images, labels)
    if augmentation.crops:
        boxes = draw_crops(images, augmentation, generator, aspects=aspects)
        images = resample(images, boxes, size or images.shape[-1])
    images = apply_policy(images, augmentation, generator)
    side = images.shape[-1]
    if augmentation.flip or augmentation.translate:
        translate = length_in_pixels(augmentation.translate, side)
        shifts = draw_shifts(images, translate, generator)
        if flips is None:
            flips = draw_flips(images, augmentation.flip, generator)
        images = shift_and_flip(images, shifts=shifts, flips=flips)
    if augmentation.cutout:
        hole = length_in_pixels(augmentation.cutout, side)
        images = cutout(images, draw_corners(images, hole, generator), hole, mean)
    if augmentation.erase_probability:
        low, high = draw_rectangles(images, augmentation.erase_probability, generator)
        images = fill_boxes(images, low, high, mean)
    return mix(images, labels, augmentation, generator=generator)


def count_views(augmentation: Augmentation) -> int:
    """Return the number of views of an image: 1, or 2 with its mirror image; 0 if unlimited."""
    if augmentation.policy == "none":
        return 1
    mixed = augmentation.mix_probability and (augmentation.mixup_alpha or augmentation.cutmix_alpha)
    drawn = augmentation.translate or augmentation.cutout or augmentation.erase_probability or mixed
    if augmentation.policy != "standard" or augmentation.crops or drawn:
        return 0
    return 2 if augmentation.flip else 1


def check_augmentation(augmentation: Augmentation, image_size: int) -> None:
    """Refuse a cutout or a translation as large as the image; `image_size` is in pixels.

    Raises:
        SpecError: the message names the key, its value and the image size.
    """
    check_cutout(length_in_pixels(augmentation.cutout, image_size), image_size)
    if length_in_pixels(augmentation.translate, image_size) >= image_size:
        raise SpecError(
            f"translate must be less than the image size of {image_size} px, "
            f"got {augmentation.translate}"
        )


def check_cutout(side: int, image_size: int) -> None:
    """Refuse a cutout square that covers the whole image."""
    if side >= image_size:
        raise SpecError(f"cutout must be less than the image size of {image_size} px, got {side}")


def draw_flips(images: Tensor, flip: bool, generator: Generator) -> Tensor:
    """Draw which images are mirrored, bool [B]: half of them, or none if `flip` is off."""
    if not flip:
        return torch.zeros(len(images), dtype=torch.bool, device=images.device)
    return torch.rand(len(images), generator=generator, device=images.device) < 0.5


def draw_shifts(images: Tensor, translate: int, generator: Generator) -> Tensor:
    """Draw shifts (down, right) in pixels, int64 [B, 2], uniform in [-translate, translate]."""
    return torch.randint(
        -translate, translate + 1, (len(images), 2), generator=generator, device=images.device
    )


def draw_corners(images: Tensor, side: int, generator: Generator) -> Tensor:
    """Draw upper left corners (row, column) of squares inside the images, int64 [B, 2]."""
    size = images.shape[-1]
    check_cutout(side, size)
    return torch.randint(
        0, size - side + 1, (len(images), 2), generator=generator, device=images.device
    )


def shift_and_flip(images: Tensor, *, shifts: Tensor, flips: Tensor) -> Tensor:
    """Mirror the images that `flips` marks left to right, then shift; borders are reflected.

    The border pixel is not repeated, as in torch's reflection padding.
    """
    batch, _, height, width = images.shape
    rows = _reflect(torch.arange(height, device=images.device) - shifts[:, :1], height)
    columns = _reflect(torch.arange(width, device=images.device) - shifts[:, 1:], width)
    columns = torch.where(flips[:, None], width - 1 - columns, columns)
    image = torch.arange(batch, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]]
    return with_format_of(moved.permute(0, 3, 1, 2), images)


def cutout(images: Tensor, corners: Tensor, side: int, mean: Tensor) -> Tensor:
    """Fill squares of `side` pixels at `corners` with the colour `mean` [3] (DeVries, 2017)."""
    return fill_boxes(images, corners, corners + side, mean)


def fill_boxes(images: Tensor, low: Tensor, high: Tensor, colour: Tensor) -> Tensor:
    """Fill boxes with one colour [3]; `low` and `high` as from `draw_boxes`."""
    box = _box(low, high, images.shape[-2:])
    return torch.where(box[:, None], colour.to(images)[:, None, None], images)


def mix(
    images: Tensor, labels: Tensor, augmentation: Augmentation, *, generator: Generator
) -> Batch:
    """Apply MixUp (Zhang et al., 2018) or CutMix (Yun et al., 2019), drawn per image.

    Each image is mixed with a random partner with probability mix_probability. If both methods
    are on, each mixed image uses one of them, with probability ½. The share of a CutMix image
    is its remaining area, after the box is clipped at the border.
    """
    if (
        not (augmentation.mixup_alpha or augmentation.cutmix_alpha)
        or not augmentation.mix_probability
    ):
        return _unmixed(images, labels)
    share = torch.ones(len(images), device=images.device)
    partner = torch.randperm(len(images), generator=generator, device=images.device)
    draws = torch.rand(2, len(images), generator=generator, device=images.device)
    mixed = draws[0] < augmentation.mix_probability
    cut = draws[1] < (0.5 if augmentation.mixup_alpha else 1.0)
    kept = torch.ones_like(images[:, 0])  # [B, S, S]: share of the image in each pixel
    if augmentation.mixup_alpha:
        weight = draw_beta(images, augmentation.mixup_alpha, generator)
        share = torch.where(mixed, weight, share)
        kept = share[:, None, None].expand_as(kept)
    if augmentation.cutmix_alpha:
        low, high = draw_boxes(images, augmentation.cutmix_alpha, generator)
        outside = (~_box(low, high, images.shape[-2:])).to(images.dtype)
        chosen = mixed & cut
        kept = torch.where(chosen[:, None, None], outside, kept)
        share = torch.where(chosen, outside.mean(dim=(1, 2)), share)
    mixture = torch.lerp(images[partner], images, kept[:, None])
    return Batch(images=mixture, labels_a=labels, labels_b=labels[partner], share=share)


def draw_beta(images: Tensor, alpha: float, generator: Generator) -> Tensor:
    """Draw shares, float32 [B], from Beta(alpha, alpha)."""
    # torch.distributions takes no generator; its Beta makes this call. float64, because at
    # alpha = 0.01 two in five gamma draws underflow in float32.
    alphas = torch.full((len(images), 2), alpha, dtype=torch.float64, device=images.device)
    return torch._sample_dirichlet(alphas, generator)[:, 0].to(torch.float32)


def draw_boxes(images: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draw CutMix's boxes: first and one past the last (row, column), int64 [B, 2] each.

    A box's side is √(1 − λ) times the image's, with λ from Beta(alpha, alpha). Its centre is
    uniform over all pixels, and it is clipped at the border.
    """
    size = images.shape[-1]
    side = size * (1 - draw_beta(images, alpha, generator)).sqrt()
    length = side.round().to(torch.int64)[:, None]
    centre = torch.randint(0, size, (len(images), 2), generator=generator, device=images.device)
    low = centre - length // 2
    return low.clamp(0, size), (low + length).clamp(0, size)


def draw_rectangles(
    images: Tensor, probability: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Draw the rectangles of random erasing (Zhong et al., 2020) in the format of `draw_boxes`.

    Images that are not erased get empty rectangles. The area is 2% to 33% of the image's, the
    ratio of height to width 0.3 to 3.3; a side longer than the image's is clipped (the original
    draws again).
    """
    size = images.shape[-1]
    draws = torch.rand(5, len(images), generator=generator, device=images.device)
    area = torch.lerp(constant_like(0.02, draws), constant_like(1 / 3, draws), draws[0])
    stretch = torch.exp((draws[1] - 0.5) * math.log(3.3))  # root of the aspect ratio
    sides = size * area.sqrt() * torch.stack([stretch, 1 / stretch])
    length = sides.round().clamp(max=size) * (draws[2] < probability)
    low = (draws[3:] * (size - length + 1)).floor()
    return low.T.long(), (low + length).T.long()


def _unmixed(images: Tensor, labels: Tensor) -> Batch:
    share = torch.ones(len(images), device=images.device)
    return Batch(images=images, labels_a=labels, labels_b=labels, share=share)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Return the positions in [0, size) to which reflection at the borders maps `index`."""
    # A triangle wave of period 2(size − 1) maps any position into the image.
    turn = max(size - 1, 1)
    return turn - (turn - index.remainder(2 * turn)).abs() if size > 1 else index * 0


def _box(low: Tensor, high: Tensor, shape: torch.Size) -> Tensor:
    """Return which pixels have low ≤ (row, column) < high, bool [B, rows, columns]."""
    rows = torch.arange(shape[0], device=low.device)
    columns = torch.arange(shape[1], device=low.device)
    in_rows = (low[:, :1] <= rows) & (rows < high[:, :1])
    in_columns = (low[:, 1:] <= columns) & (columns < high[:, 1:])
    return in_rows[:, :, None] & in_columns[:, None, :]
