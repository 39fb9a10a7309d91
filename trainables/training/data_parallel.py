"""Data-parallel training: several processes train one network, each on a shard of every batch.

Axes: B images of a batch. Every process draws and augments the whole batch from the same random
streams, runs forward and backward passes on its own shard, and takes the same optimizer step from
the sum of all gradients. The result is therefore the same for any number of processes, up to the
order of float sums, with two exceptions: in training, batch normalization sees only the process's
own shard, and each process draws its own dropout masks. The running statistics of a shard never
reach a scored network that was trained from scratch, because every process recalibrates them on
the same images. A network with pretrained weights is scored with those of rank 0's shards.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, distributed, nn

from trainables.augmentation.batch import Batch
from trainables.nets.auxiliary_heads import ROTATED_EVERY


@dataclass(frozen=True, slots=True, kw_only=True)
class DataParallel:
    """The rank of this process in its torch.distributed group, which must be initialized."""

    rank: int
    """Counts from 0; the process of rank 0 writes the files."""
    world_size: int
    """Number of processes."""

    def shard(self, batch: Batch) -> Batch:
        """Return this process's consecutive shard of a batch; sizes differ by at most one image."""
        return part_of_batch(batch, self.rank, self.world_size)

    def average_gradients(
        self,
        loss: Tensor,
        model: nn.Module,
        share: float,
        *,
        all_reduce: Callable[[Tensor], object] = distributed.all_reduce,
    ) -> Tensor:
        """Replace every gradient by that of the whole batch; return the loss of the whole batch.

        `loss` and the gradients are means over this process's shard, which is a fraction `share`
        of the batch. They are weighted by `share` and summed over all processes in one all-reduce.
        """
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([loss.detach().reshape(1), *[g.reshape(-1) for g in gradients]])
        flat *= share
        all_reduce(flat)
        start = 1
        for gradient in gradients:
            end = start + gradient.numel()
            gradient.copy_(flat[start:end].view(gradient.shape))
            start = end
        return flat[0]


def part_of_batch(batch: Batch, index: int, count: int) -> Batch:
    """Return one of `count` consecutive parts of a batch; sizes differ by at most one image."""
    if count == 1:
        return batch
    size = len(batch.images)
    part = slice(index * size // count, (index + 1) * size // count)
    values: dict[str, Any] = {item.name: getattr(batch, item.name) for item in fields(Batch)}
    parts: dict[str, Any] = {n: v[part] if isinstance(v, Tensor) else v for n, v in values.items()}
    first = (batch.first_rotated - part.start) % ROTATED_EVERY
    return Batch(**{**parts, "first_rotated": first})
