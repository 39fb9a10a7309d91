"""A network that runs out of memory in training, as recipes name it: `…small_memory:limited`."""

import torch
from torch import Tensor, nn

from trainables.hyperparameters import Architecture

LIMIT = 9
"""Largest micro-batch of the limited network, in images."""


class Net(nn.Module):
    """Batch normalization, dropout and a linear layer; memory runs out after both."""

    def __init__(self, features: int, classes: int, limit: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(features, classes)
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(self.norm(x.flatten(1)))
        if self.training and len(x) > self.limit:
            raise torch.OutOfMemoryError(f"no room for {len(x)} images")
        logits: Tensor = self.head(y)
        return logits


def limited(*, classes: int, image_size: int, recipe: Architecture) -> Net:
    """Build the network with a limit."""
    return Net(3 * image_size**2, classes, LIMIT)


def unlimited(*, classes: int, image_size: int, recipe: Architecture) -> Net:
    """Build the same network with all the memory it asks for."""
    return Net(3 * image_size**2, classes, 10**9)
