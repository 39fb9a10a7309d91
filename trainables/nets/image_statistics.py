"""Statistics of training images, in bounded memory: channel moments, and covariance of patches.

Axes: N images, S×S pixels, C channels. Images are read in chunks from an array that may be
memory-mapped; no more than CHUNK_VALUES of their values are in memory as floats at a time.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

CHUNK_VALUES = 1 << 20
"""Values of a chunk of images; an image with more values is a chunk of its own."""

PATCH_SIDE = 2
"""Side in pixels of the patches that are whitened."""


def pixel_chunks(
    images: npt.NDArray[np.uint8], indices: npt.NDArray[np.int64]
) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the images at `indices` of uint8 [N, S, S, C], a few at a time."""
    rows = max(1, CHUNK_VALUES // int(np.prod(images.shape[1:])))
    for start in range(0, len(indices), rows):
        yield np.ascontiguousarray(images[indices[start : start + rows]])


def mean_and_std(chunks: Iterable[npt.NDArray[np.uint8]]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of images in [0, 1], float32 [C] each.

    Pixels have 256 values, so their histogram gives both exactly, in any order of the chunks. The
    standard deviation is at least one grey level, never zero.
    """
    counts: npt.NDArray[np.int64] | None = None
    for pixels in chunks:
        channels = pixels.reshape(-1, pixels.shape[-1]).T
        part = np.stack([np.bincount(channel, minlength=256) for channel in channels])
        counts = part if counts is None else counts + part
    if counts is None:
        raise ValueError("the statistics of no images are undefined")
    values = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    variance = (shares * (values - mean[:, None]) ** 2).sum(axis=1)
    std = np.maximum(np.sqrt(variance), 1 / 255)
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()


def patch_covariance(chunks: Iterable[Tensor]) -> Tensor:
    """Return the uncentred covariance float64 [4C, 4C] of all 2×2 patches of images [N, C, S, S].

    A patch is a row of its values by channel, then row, then column.
    """
    total, count = torch.zeros((), dtype=torch.float64), 0
    for images in chunks:
        patches = images.unfold(2, PATCH_SIDE, 1).unfold(3, PATCH_SIDE, 1)  # [N, C, S-1, S-1, 2, 2]
        width = images.shape[1] * PATCH_SIDE**2
        rows = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, width).double()
        total, count = total + rows.T @ rows, count + len(rows)
    return total / count
