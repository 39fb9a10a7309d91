"""Augmentation sheets: images beside their augmented views under a recipe.

Axes: N images, S×S pixels, 3 channels (RGB).
"""

from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from trainables.augmentation.batch import augment
from trainables.recipe import Recipe

GAP = 2
"""White pixels between neighbours."""


def augmentation_sheet(
    images: npt.NDArray[np.uint8],
    recipe: Recipe,
    generator: torch.Generator,
    *,
    draws: int = 6,
    large: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw a row for each of `images`, uint8 [N, S, S, 3]: the original, then `draws` views.

    Returns pixels, uint8 [N·S + gaps, (1 + draws)·S + gaps, 3]. MixUp and CutMix take their
    partners among `images`; erased areas get the mean colour of `images`. Random crops are cut
    from `large`, uint8 [N, W, W, 3], if given.
    """
    pixels, labels = _floats(images), torch.arange(len(images))
    cut_from = large if large is not None and recipe.augmentation.crops else images
    draw = partial(
        augment,
        _floats(cut_from),
        labels,
        recipe.augmentation,
        mean=pixels.mean(dim=(0, 2, 3)),
        generator=generator,
        size=pixels.shape[-1],
    )
    views = [draw().images for _ in range(draws)]
    # [N, 1 + draws, S, S, 3]
    tiles = torch.stack([pixels, *views], dim=1).permute(0, 1, 3, 4, 2)
    return _joined((tiles * 255).round().byte().numpy())


def _floats(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255


def _joined(tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Join tiles [rows, columns, S, S, 3] to one picture."""
    rows, columns, size = tiles.shape[:3]
    pitch = size + GAP
    sheet = np.full((rows * pitch - GAP, columns * pitch - GAP, 3), 255, np.uint8)
    for row, column in np.ndindex(rows, columns):
        top, left = row * pitch, column * pitch
        sheet[top : top + size, left : left + size] = tiles[row, column]
    return sheet
