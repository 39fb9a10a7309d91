"""Data-parallel training: several processes train one network, each on a shard of every batch.

Axes: B images of a batch. Every process draws and augments the whole batch from the same
streams, runs its own shard, and takes the same optimizer step from the sum of all gradients.
So any number of processes computes what one does, up to the order of float sums, with one
exception: batch normalization in training sees only the process's own shard. The scored
network has no such exception, because every process measures its statistics again on the
same images.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, distributed, nn

from trainables.augmentation.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class DataParallel:
    """The process's place among those of its torch.distributed group, which must exist."""

    rank: int
    """From 0; the process of rank 0 writes the files."""
    world_size: int
    """Number of processes."""

    def shard(self, batch: Batch) -> Batch:
        """Return this process's consecutive part of a batch; parts differ by at most one image."""
        size = len(batch.images)
        start = self.rank * size // self.world_size
        end = (self.rank + 1) * size // self.world_size
        parts: dict[str, Any] = {item.name: getattr(batch, item.name) for item in fields(Batch)}
        for name, value in parts.items():
            parts[name] = None if value is None else value[start:end]
        return Batch(**parts)

    def average_gradients(
        self,
        loss: Tensor,
        model: nn.Module,
        share: float,
        *,
        all_reduce: Callable[[Tensor], object] = distributed.all_reduce,
    ) -> Tensor:
        """Replace every gradient by the whole batch's; return the whole batch's loss.

        `loss` and the gradients are means over this process's shard, which is `share` of the
        batch; they are summed, weighted by it, in one exchange.
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
