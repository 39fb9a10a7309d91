"""One of several processes that train the same net together, each on its part of a batch.

Axes: B images of a batch. Every replica draws and augments the whole batch from the same
streams, works through its own part of it, and takes the same optimizer step from the sum
of all gradients. So any number of replicas does what one process does, up to the order of
float sums: with one exception. Batch normalization in training sees a replica's own part
alone. The scored net has no such exception, since its statistics are measured again on the
same images by every replica.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, distributed, nn

from trainables.augmentation.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """Which of the processes this is; their torch.distributed group must exist."""

    rank: int
    """From 0; the process of rank 0 writes the files."""
    world: int
    """How many processes there are."""

    def part(self, batch: Batch) -> Batch:
        """The replica's consecutive share of a batch; shares differ by one image at most."""
        size = len(batch.images)
        start, end = self.rank * size // self.world, (self.rank + 1) * size // self.world
        parts: dict[str, Any] = {item.name: getattr(batch, item.name) for item in fields(Batch)}
        for name, value in parts.items():
            parts[name] = None if value is None else value[start:end]
        return Batch(**parts)

    def average(self, loss: Tensor, model: nn.Module, share: float) -> Tensor:
        """Make every gradient the whole batch's; return the whole batch's loss.

        `loss` and the gradients are means over this replica's part, which is `share` of
        the batch; they are summed, weighted by it, in one exchange.
        """
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([loss.detach().reshape(1), *[g.reshape(-1) for g in gradients]])
        flat *= share
        distributed.all_reduce(flat)
        start = 1
        for gradient in gradients:
            end = start + gradient.numel()
            gradient.copy_(flat[start:end].view(gradient.shape))
            start = end
        return flat[0]
