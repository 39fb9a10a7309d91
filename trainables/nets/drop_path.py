"""Drop residual branches in training, image by image (stochastic depth, arXiv 1603.09382)."""

from timm.layers import DropPath  # type: ignore[attr-defined]
from torch import nn


def branch_drop_rates(largest: float, branches: int) -> list[float]:
    """Return the probability of skipping each branch, rising linearly from 0 to `largest`."""
    return [largest * index / (branches - 1) for index in range(branches)]


def drop_path(rate: float) -> nn.Module:
    """Return the layer after a branch; the branches that are kept are scaled by 1/(1 − rate)."""
    return DropPath(rate) if rate else nn.Identity()


def has_drop_path(net: nn.Module) -> bool:
    """Return whether a network has layers that drop branches; timm's families define their own."""
    return any(type(module).__name__ == "DropPath" for module in net.modules())
