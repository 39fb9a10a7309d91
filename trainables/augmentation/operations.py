"""Image operations on batches, with a strength per image.

Axes: B images, 3 channels (RGB), S×S pixels. Images are float [B, 3, S, S] in [0, 1]; their
memory format is kept. No operation draws random numbers or loops over images.

`solarize`, `posterize` and `equalize` round to 8 bits first, as Pillow does, so on 8-bit images
their results equal Pillow's exactly. The others compute in float32 without rounding; their
results differ from Pillow's by less than 1.5 grey levels.
"""

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from trainables.augmentation.constants import constant_like

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601), as in Pillow."""

_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def warp(
    images: Tensor,
    thetas: Tensor,
    *,
    mode: Literal["nearest", "bilinear"] = "bilinear",
    border: Literal["zeros", "reflection"] = "reflection",
) -> Tensor:
    """Sample every image through its own affine map, in one call of grid_sample.

    `thetas` [B, 2, 3] maps positions in the result to positions in the image; x and y run from
    −1 to 1 between the outer edges of the pixels. Positions outside the image are mirrored back
    into it (`reflection`) or black (`zeros`).
    """
    grid = functional.affine_grid(thetas, list(images.shape), align_corners=False)
    moved = functional.grid_sample(
        images.contiguous(), grid, mode=mode, padding_mode=border, align_corners=False
    )
    return with_format_of(moved, images)


def affine_maps(*, degrees: Tensor, scales: Tensor, shears: Tensor) -> Tensor:
    """Return maps [B, 2, 3] for `warp` that rotate, zoom and shear about the centre.

    `degrees` [B] rotate counter-clockwise, `scales` [B] above 1 enlarge, `shears` [B, 2] are
    tangents along x and y. The image is sheared first, then enlarged, then rotated.
    """
    angles = degrees.deg2rad()
    cos, sin = angles.cos() / scales, angles.sin() / scales
    rotations = _matrix([[cos, -sin], [sin, cos]])
    x, y = shears.unbind(dim=1)
    one = torch.ones_like(x)
    return functional.pad(_matrix([[one, x], [y, one]]) @ rotations, (0, 1))


def recolour(images: Tensor, matrices: Tensor) -> Tensor:
    """Multiply each image's channels by its matrix, [B, 3, 4]; the last column is an offset."""
    mixing, offset = matrices[:, :, :3], matrices[:, :, 3]
    if images.is_contiguous():
        planes = torch.baddbmm(offset[:, :, None], mixing, images.flatten(2))
        return planes.clamp_(0, 1).view_as(images)
    pixels = images.permute(0, 2, 3, 1).reshape(len(images), -1, 3)
    mixed = torch.baddbmm(offset[:, None, :], pixels, mixing.transpose(1, 2)).clamp_(0, 1)
    rows = mixed.view(len(images), *images.shape[2:], 3)
    return with_format_of(rows.permute(0, 3, 1, 2), images)


def colour_matrices(
    images: Tensor, *, brightness: Tensor, contrast: Tensor, saturation: Tensor
) -> Tensor:
    """Return matrices [B, 3, 4] for `recolour`: brightness, then contrast, then saturation.

    All three are factors [B], 1 for no change. Contrast scales the distance to the image's mean
    luma, saturation the distance to each pixel's luma, as in Pillow.
    """
    luma = constant_like(LUMA, images)
    # x → s·(c·b·x + o) + (1 − s)·luma·(c·b·x + o); the constant o = (1 − c)·b·mean is grey, so
    # saturation does not change it.
    scale = (brightness * contrast)[:, None, None]
    share = saturation[:, None, None]
    same = torch.eye(3, dtype=images.dtype, device=images.device)
    mixing = scale * (share * same + (1 - share) * luma)
    mean = images.mean(dim=(2, 3)) @ luma
    offset = ((1 - contrast) * brightness * mean)[:, None, None].expand(-1, 3, 1)
    return torch.cat([mixing, offset], dim=2)


def hue_matrices(degrees: Tensor) -> Tensor:
    """Return matrices [B, 3, 3] that rotate the hue by `degrees` [B] and keep luma and greys.

    They rotate the colour plane of YIQ, which is a linear map. A rotation of HSV's hue is not; it
    turns colours in the same direction but also changes their brightness.
    """
    angles = degrees.deg2rad()
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    one = torch.ones_like(angles)
    rotations = _matrix([[one, zero, zero], [zero, cos, sin], [zero, -sin, cos]])
    return constant_like(_rgb_of_yiq(), degrees) @ rotations @ constant_like(_YIQ, degrees)


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert pixels at or above `thresholds` [B], in grey levels from 0 to 256."""
    # Subtract half a level, so that the rounding of k/255 does not matter.
    above = images * 255 >= thresholds[:, None, None, None] - 0.5
    return torch.where(above, 1 - images, images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the most significant `bits` [B], 1 to 8, of each channel's eight bits."""
    step = torch.exp2(8 - bits.to(images.dtype))[:, None, None, None]
    return ((images * 255).round_() / step).floor_() * step / 255


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel to the range 0 to 1; constant channels are unchanged."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    flat = high <= low
    return (images - low.masked_fill(flat, 0)) / (high - low).masked_fill(flat, 1)


def equalize(images: Tensor) -> Tensor:
    """Equalize each channel's histogram with a lookup table of 256 grey levels, as Pillow does.

    The table rises by one level per ⌊(S² − last bin)/255⌋ pixels. This is 0 for images smaller
    than 16×16, which are unchanged.
    """
    levels = (images * 255).round_().long().flatten(2)
    counts = levels.new_zeros(*levels.shape[:2], 256).scatter_add_(
        2, levels, torch.ones_like(levels)
    )
    below = counts.cumsum(dim=2) - counts
    brightest = levels.amax(dim=2, keepdim=True)
    step = below.gather(2, brightest) // 255
    table = (below + step // 2) // step.clamp(min=1)
    spread = table.gather(2, levels).clamp_(max=255).to(images.dtype) / 255
    result = torch.where(step > 0, spread, images.flatten(2))
    return with_format_of(result.view(images.shape), images)


def sharpen(images: Tensor, factors: Tensor) -> Tensor:
    """Scale the distance to the smoothed image by `factors` [B]: 0 smooths, above 1 sharpens.

    The smoothed image is a 3×3 mean with weight 5 of 13 at the centre. Border pixels are
    unchanged.
    """
    if images.shape[-1] < 3:
        return images
    inner = images[:, :, 1:-1, 1:-1]
    smooth = (functional.avg_pool2d(images, 3, stride=1) * 9 + inner * 4) / 13
    result = images.clone()
    result[:, :, 1:-1, 1:-1] = torch.lerp(smooth, inner, factors[:, None, None, None]).clamp_(0, 1)
    return result


def with_format_of(images: Tensor, pattern: Tensor) -> Tensor:
    """Return `images` in the memory format of `pattern`."""
    if pattern.is_contiguous():
        return images.contiguous()
    return images.contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=1)
def _rgb_of_yiq() -> tuple[tuple[float, ...], ...]:
    """Return the inverse of `_YIQ`."""
    rows: list[list[float]] = torch.tensor(_YIQ, dtype=torch.float64).inverse().tolist()
    return tuple(tuple(row) for row in rows)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    """Return matrices [B, rows, columns] from rows of entries [B]."""
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
