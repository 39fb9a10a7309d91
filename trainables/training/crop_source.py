"""The larger copies of the training images, in batches on the training device.

Axes: N images of the data set, B images of a batch, W×W pixels of a copy.
"""

from collections.abc import Iterator
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables.data.image_set import ImageSet
from trainables.prediction import PixelSource, nearly_equal_parts
from trainables.recipe import Numerics


class CropSource:
    """Larger square copies of the training images, and the aspect ratios of the originals.

    On CUDA they are copied to the device at their first use, under the memory rule of
    `PixelSource`.
    """

    def __init__(
        self,
        copies: npt.NDArray[np.uint8],
        aspects: npt.NDArray[np.float32],
        indices: npt.NDArray[np.int64],
        numerics: Numerics,
    ) -> None:
        """`indices` are positions of the training images in `copies`, uint8 [N, W, W, 3]."""
        self._copies, self._indices, self._numerics = copies, indices, numerics
        self._source: PixelSource | None = None
        self._aspects = torch.from_numpy(aspects[indices]).to(numerics.device)

    @classmethod
    def of(
        cls, images: ImageSet, indices: npt.NDArray[np.int64], numerics: Numerics
    ) -> Self | None:
        """Return the larger copies of these images, or None if the set has none."""
        if images.large is None:
            return None
        return cls(images.large.pixels, images.large.aspects, indices, numerics)

    def batches(self, positions: Tensor, *, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Return copies float [B, 3, W, W] in [0, 1] at `positions`, and aspect ratios [B].

        They are split into batches as by `PixelSource.batches`.
        """
        if self._source is None:
            self._source = PixelSource(self._copies, self._indices, self._numerics)
        aspects = self._aspects[positions.to(self._aspects.device)]
        parts = nearly_equal_parts(aspects, size)
        return map(lambda *pair: pair, self._source.batches(positions, size=size), parts)
