"""The order in which training images are seen: epochs of one pass, a part of one, or several.

An epoch of one pass is a new permutation, without the images left over after the last full batch.
Epochs of other lengths take their images from one permutation after another, so that every image
is seen once before any is seen twice.

Axes: N training images, B images of a batch.
"""

import torch
from torch import Tensor

from common.seeds import torch_generator


class EpochOrder:
    """The training images of each epoch, in batches of equal size."""

    def __init__(self, count: int, batch_size: int, *, passes: float, seed: int) -> None:
        """`count` is N; `passes` are the passes over the images in one epoch."""
        self.count = count
        self.batch_size = batch_size
        self._seed = seed
        self._whole = passes == 1.0
        self.batches = (
            count // batch_size if self._whole else max(1, round(passes * count / batch_size))
        )
        """Optimizer steps per epoch."""

    def epoch(self, epoch: int, *, step: int) -> tuple[Tensor, Tensor]:
        """Return positions, int64 [batches × B], and the number of each one's pass, from 1.

        `epoch` is that of the schedule. `step` names the random stream of an epoch of one pass.
        """
        if self._whole:
            order = torch.randperm(
                self.count, generator=torch_generator(self._seed, "order", step)
            )[: self.batches * self.batch_size]
            return order, torch.full_like(order, epoch)
        first = (epoch - 1) * self.batches * self.batch_size
        return self._consecutive(first, first + self.batches * self.batch_size)

    def _consecutive(self, first: int, end: int) -> tuple[Tensor, Tensor]:
        positions, passes = [], []
        for number in range(first // self.count, -(-end // self.count)):
            generator = torch_generator(self._seed, "order of pass", number)
            order = torch.randperm(self.count, generator=generator)
            start = number * self.count
            part = order[max(0, first - start) : end - start]
            positions.append(part)
            passes.append(torch.full_like(part, number + 1))
        return torch.cat(positions), torch.cat(passes)
