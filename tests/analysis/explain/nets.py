"""Small networks that are easy to explain."""

import numpy as np
import torch
from torch import Tensor, nn

from trainables.nets.classifier import Classifier

SIZE = 16


class Corner(nn.Module):
    """Two classes: the brightness of the upper left and of the lower right quarter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        nn.init.constant_(self.conv.weight, 1 / 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        half = SIZE // 2
        return torch.stack(
            [maps[:, 0, :half, :half].mean((1, 2)), maps[:, 1, half:, half:].mean((1, 2))], dim=1
        )


class Flat(nn.Module):
    """A network without feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * SIZE * SIZE, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def classifier(net: nn.Module) -> Classifier:
    return Classifier(net, classes=2, image_size=SIZE)


def spot(row: int, column: int) -> np.ndarray:
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[row : row + 4, column : column + 4] = 255
    return pixels
