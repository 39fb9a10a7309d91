"""Contact sheets: what a recipe's augmentation makes of some images.

Axes: N images, S×S pixels, 3 channels (RGB).
"""

import numpy as np
import numpy.typing as npt
import torch

from trainables.augmentation.batch import augment
from trainables.recipe import Recipe

GAP = 2
"""White pixels between neighbours."""


def contact_sheet(
    images: npt.NDArray[np.uint8],
    recipe: Recipe,
    generator: torch.Generator,
    *,
    draws: int = 6,
) -> npt.NDArray[np.uint8]:
    """A row for each of `images`, uint8 [N, S, S, 3]: itself, then `draws` views in training.

    uint8 [N·S + gaps, (1 + draws)·S + gaps, 3], for any saver of images. MixUp and CutMix
    take their partners among `images`; what is painted over has their mean colour.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    labels, mean = torch.arange(len(images)), pixels.mean(dim=(0, 2, 3))
    views = [
        augment(pixels, labels, recipe.augmentation, mean=mean, generator=generator).images
        for _ in range(draws)
    ]
    # [N, 1 + draws, S, S, 3]
    tiles = torch.stack([pixels, *views], dim=1).permute(0, 1, 3, 4, 2)
    return _joined((tiles * 255).round().byte().numpy())


def _joined(tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Tiles [rows, columns, S, S, 3] as one picture."""
    rows, columns, size = tiles.shape[:3]
    pitch = size + GAP
    sheet = np.full((rows * pitch - GAP, columns * pitch - GAP, 3), 255, np.uint8)
    for row, column in np.ndindex(rows, columns):
        top, left = row * pitch, column * pitch
        sheet[top : top + size, left : left + size] = tiles[row, column]
    return sheet
