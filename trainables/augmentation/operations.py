"""Image operations in batches, each image with a strength of its own.

Axes: B images, 3 channels (RGB), S×S pixels. Images are float [B, 3, S, S] in [0, 1]; their
memory format is kept. Nothing is drawn here, and no operation loops over images.

Where Pillow works on whole grey levels, so do `solarize`, `posterize` and `equalize`, after
rounding to 8 bits: on 8-bit images they are Pillow's to the last bit. The others compute in
float32 and are not rounded in between: they differ from Pillow's by less than a grey level
and a half.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue contribute to brightness (ITU-R BT.601), as in Pillow."""

_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def warp(
    images: Tensor,
    thetas: Tensor,
    *,
    mode: Literal["nearest", "bilinear"] = "bilinear",
    border: Literal["zeros", "reflection"] = "reflection",
) -> Tensor:
    """Sample every image by its own affine map, in one call of grid_sample.

    `thetas` [B, 2, 3] takes a place in the result to a place in the image; (x, y) run
    from −1 to 1 over the pixels' outer edges. Beyond them lies the mirrored image, or black.
    """
    grid = functional.affine_grid(thetas, list(images.shape), align_corners=False)
    moved = functional.grid_sample(
        images.contiguous(), grid, mode=mode, padding_mode=border, align_corners=False
    )
    return like(moved, images)


def turns(*, degrees: Tensor, scales: Tensor, shears: Tensor) -> Tensor:
    """Maps [B, 2, 3] for `warp`: rotation, zoom and shear about the centre.

    `degrees` [B] turn counter-clockwise, `scales` [B] above 1 enlarge, `shears` [B, 2] are
    tangents along x and y. The image is sheared first, then enlarged, then turned.
    """
    angles = degrees.deg2rad()
    cos, sin = angles.cos() / scales, angles.sin() / scales
    turned = _matrix([[cos, -sin], [sin, cos]])
    x, y = shears.unbind(dim=1)
    one = torch.ones_like(x)
    return functional.pad(_matrix([[one, x], [y, one]]) @ turned, (0, 1))


def recolour(images: Tensor, matrices: Tensor) -> Tensor:
    """Mix each image's channels by a matrix of its own, [B, 3, 4]; its last column is added."""
    mixing, offset = matrices[:, :, :3], matrices[:, :, 3]
    if images.is_contiguous():
        planes = torch.baddbmm(offset[:, :, None], mixing, images.flatten(2))
        return planes.clamp_(0, 1).view_as(images)
    pixels = images.permute(0, 2, 3, 1).reshape(len(images), -1, 3)
    mixed = torch.baddbmm(offset[:, None, :], pixels, mixing.transpose(1, 2)).clamp_(0, 1)
    rows = mixed.view(len(images), *images.shape[2:], 3)
    return like(rows.permute(0, 3, 1, 2), images)


def colour_matrices(
    images: Tensor, *, brightness: Tensor, contrast: Tensor, saturation: Tensor
) -> Tensor:
    """Matrices [B, 3, 4] for `recolour` that change brightness, then contrast, then saturation.

    All three are factors [B], 1 for no change. Contrast scales the distance to the image's
    mean luma, saturation that to each pixel's luma, as in Pillow.
    """
    luma = torch.tensor(LUMA).to(images)
    # x → s·(c·b·x + o) + (1 − s)·luma·(c·b·x + o), where the constant o = (1 − c)·b·mean is
    # grey, which saturation leaves alone.
    scale = (brightness * contrast)[:, None, None]
    share = saturation[:, None, None]
    mixing = scale * (share * torch.eye(3).to(images) + (1 - share) * luma)
    mean = images.mean(dim=(2, 3)) @ luma
    offset = ((1 - contrast) * brightness * mean)[:, None, None].expand(-1, 3, 1)
    return torch.cat([mixing, offset], dim=2)


def hue_matrices(degrees: Tensor) -> Tensor:
    """Matrices [B, 3, 3] that turn the hue by `degrees` [B], keeping luma and greys.

    A rotation of the colour plane of YIQ: linear, unlike the hue of HSV, with which it
    agrees in direction but not in every colour's brightness.
    """
    angles = degrees.deg2rad()
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    one = torch.ones_like(angles)
    turned = _matrix([[one, zero, zero], [zero, cos, sin], [zero, -sin, cos]])
    yiq = torch.tensor(_YIQ, dtype=torch.float64)
    return yiq.inverse().to(degrees) @ turned @ yiq.to(degrees)


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert pixels at or above `thresholds` [B], in grey levels from 0 to 256."""
    # Half a level lower, so that no rounding of k/255 decides.
    above = images * 255 >= thresholds[:, None, None, None] - 0.5
    return torch.where(above, 1 - images, images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the upper `bits` [B], 1 to 8, of each channel's eight."""
    step = torch.exp2(8 - bits.to(images.dtype))[:, None, None, None]
    return ((images * 255).round_() / step).floor_() * step / 255


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel to reach from 0 to 1; a constant channel stays as it is."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    flat = high <= low
    return (images - low.masked_fill(flat, 0)) / (high - low).masked_fill(flat, 1)


def equalize(images: Tensor) -> Tensor:
    """Spread each channel's histogram evenly, by Pillow's table of 256 grey levels.

    That table steps once per ⌊(S² − last bin)/255⌋ pixels; images smaller than 16×16 have
    no whole step and stay as they are.
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
    return like(result.view(images.shape), images)


def sharpen(images: Tensor, factors: Tensor) -> Tensor:
    """Scale by `factors` [B] the distance to the smoothed image; 0 smooths, above 1 sharpens.

    Smoothed means a 3×3 mean in which the centre weighs 5 of 13. Border pixels stay.
    """
    if images.shape[-1] < 3:
        return images
    inner = images[:, :, 1:-1, 1:-1]
    smooth = (functional.avg_pool2d(images, 3, stride=1) * 9 + inner * 4) / 13
    result = images.clone()
    result[:, :, 1:-1, 1:-1] = torch.lerp(smooth, inner, factors[:, None, None, None]).clamp_(0, 1)
    return result


def like(images: Tensor, pattern: Tensor) -> Tensor:
    """`images` in the memory format of `pattern`."""
    if pattern.is_contiguous():
        return images.contiguous()
    return images.contiguous(memory_format=torch.channels_last)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    """Entries [B] each, to matrices [B, rows, columns]."""
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
