"""Wide residual networks for small images (Zagoruyko & Komodakis, 2016).

Axes: B images, S×S pixels, K classes. `wrn-D-W` (depth D, widening factor W) has three groups of
(D − 4) / 6 blocks with 16·W, 32·W and 64·W channels. A block is BN → ReLU → 3×3 → BN → ReLU →
dropout → 3×3, plus a shortcut. The second and third groups halve the side of the feature map.
"""

from torch import Tensor, nn
from torch.nn import functional

from common.errors import SpecError
from trainables.hyperparameters import Architecture
from trainables.nets.drop_path import branch_drop_rates, drop_path
from trainables.nets.head import NetWithHead

_GROUPS = ((16, 1), (32, 2), (64, 2))
"""Channels as a multiple of the widening factor, and the stride of the first block."""


class WideResNet(NetWithHead):
    """The network of `model: wrn-D-W`."""

    def __init__(self, architecture: Architecture, *, classes: int, in_channels: int = 3) -> None:
        """Build the network; a depth that is not 6n + 4 raises SpecError."""
        super().__init__()
        depth, factor = (int(part) for part in architecture.model.split("-")[1:])
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1 or factor < 1:
            raise SpecError(
                f"model 'wrn-DEPTH-K' needs a depth of 10, 16, 22, 28, … and K of 1 or more, "
                f"got {architecture.model!r}"
            )
        channels = 16
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)]
        drop_rates = iter(branch_drop_rates(architecture.drop_path, len(_GROUPS) * blocks))
        for base, stride in _GROUPS:
            for index in range(blocks):
                width = base * factor
                step = 1 if index else stride
                drop = next(drop_rates)
                layers.append(
                    _Block(channels, width, step, dropout=architecture.dropout, drop_path_rate=drop)
                )
                channels = width
        self.body = nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU())
        self.head = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, [B, 64·W, S/4, S/4], of normalized images [B, 3, S, S]."""
        features: Tensor = self.body(x)
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits [B, K] of a feature map; with `pre_logits`, the features [B, 64·W]."""
        x = x.mean(dim=(2, 3))
        return x if pre_logits else self.head(x)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:  # noqa: ARG002 (timm's hook)
        """Return the patterns by which timm's layer decay groups parameters into layers."""
        return {"stem": r"^body\.0\.", "blocks": r"^body\.(\d+)"}


class _Block(nn.Module):
    """A residual block from [B, channels, S, S] to [B, width, S/stride, S/stride]."""

    def __init__(
        self, channels: int, width: int, stride: int, *, dropout: float, drop_path_rate: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = drop_path(drop_path_rate)
        self.shortcut: nn.Module = nn.Identity()
        if channels != width or stride != 1:
            self.shortcut = nn.Conv2d(channels, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.norm1(x))
        # A projection reads the first convolution's input, an identity the block's input.
        short = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(active)
        y = functional.relu(self.norm2(self.conv1(active)))
        result: Tensor = self.drop_path(self.conv2(self.dropout(y))) + short
        return result
