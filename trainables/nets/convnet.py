"""The convolutional network of `model: convnet`, after airbench (KellerJordan/cifar10-airbench).

Axes: B images, S×S pixels, K classes. The layers are a frozen convolution that whitens 2×2
patches, three blocks of 3×3 convolutions initialized as the identity, a global mean and one
linear layer.
"""

from collections.abc import Callable

import torch
from timm.layers import create_attn  # type: ignore[attr-defined]
from torch import Tensor, nn

from common.errors import SpecError
from trainables.hyperparameters import Architecture
from trainables.nets.head import NetWithHead

SMALLEST_IMAGE = 8
"""Smallest side in pixels that three poolings can reduce."""

_PATCH_PIXELS = 2 * 2
_WHITENING_EPS = 5e-4
_LIVE_VARIANCE = 1e-3

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
}


class ConvNet(NetWithHead):
    """Whitening → three blocks of `width` × (1, middle, 4) channels → mean → linear."""

    def __init__(
        self, architecture: Architecture, *, classes: int, image_size: int, in_channels: int = 3
    ) -> None:
        """Build the network for images of `in_channels` channels.

        Raises:
            SpecError: images are smaller than 8 px, or the recipe drops paths.
        """
        super().__init__()
        if image_size < SMALLEST_IMAGE:
            raise SpecError(
                f"convnet needs images of at least {SMALLEST_IMAGE} px, got {image_size}; "
                f"set dataset.image_size"
            )
        if architecture.drop_path:
            raise SpecError(
                f"drop_path is for networks of many residual blocks, and convnet has three blocks; "
                f"set drop_path to 0 instead of {architecture.drop_path}, or model to a wide "
                "residual network or one of timm's"
            )
        channels, size = in_channels, image_size
        self.whitening: nn.Conv2d | None = None
        self.whitening_activation: nn.Module = nn.Identity()
        if architecture.whitening:
            filters = 2 * _PATCH_PIXELS * in_channels
            self.whitening = nn.Conv2d(in_channels, filters, 2)
            self.whitening.weight.requires_grad_(False)
            self.whitening_activation = _ACTIVATIONS[architecture.activation]()
            channels, size = filters, size - 1
        blocks = []
        for factor in (1, architecture.middle, 4):
            width = architecture.width * factor
            blocks.append(ConvBlock(architecture, channels, width, pool=size >= 2))
            channels, size = width, max(size // 2, 1)
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(architecture.dropout)
        self.head = nn.Linear(channels, classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, [B, C, s, s], of normalized images [B, 3, S, S]."""
        if self.whitening is not None:
            x = self.whitening_activation(_in_float32(self.whitening, x))
        features: Tensor = self.blocks(x)
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits [B, K] of a map [B, C, s, s]; with `pre_logits`, the features [B, C]."""
        # airbench takes the maximum. At width 24 in 8 epochs of CIFAR-10 (JPEG) the mean gave
        # 0.670 and the maximum 0.617 on val from 5,000 images (n = 2 seeds), 0.787 and 0.778
        # from 15,000 (n = 1).
        x = self.dropout(x.mean(dim=(2, 3)))
        return x if pre_logits else self.head(x)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:  # noqa: ARG002 (timm's hook)
        """Return the patterns by which timm's layer decay groups parameters into layers."""
        return {"stem": r"^whitening", "blocks": r"^blocks\.(\d+)"}


class ConvBlock(nn.Module):
    """A block of `depth` 3×3 convolutions and one 2×2 pooling, residual from the third on.

    `airbench`: conv → pool → BN → act, then conv → BN → act. `plain`: conv → BN → act
    throughout, pool at the end, so that every BN folds into the convolution before it.
    `early`: conv → BN → act → pool, then as in `plain`, so that all but the first convolution
    compute a quarter of the pixels.
    """

    def __init__(
        self, architecture: Architecture, channels: int, width: int, *, pool: bool
    ) -> None:
        """Build the block; `pool` is False if the map is a single pixel."""
        super().__init__()
        pooling = nn.MaxPool2d(2) if pool else nn.Identity()
        nothing = nn.Identity()
        self.early_pool = pooling if architecture.block == "airbench" else nothing
        self.middle_pool = pooling if architecture.block == "early" else nothing
        self.late_pool = pooling if architecture.block == "plain" else nothing
        self.convs = nn.ModuleList(
            _conv(channels if i == 0 else width, width, architecture.init)
            for i in range(architecture.depth)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(architecture.depth))
        self.activation = _ACTIVATIONS[architecture.activation]()
        name = architecture.attention
        self.attention = nn.Identity() if name == "none" else create_attn(name, width)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels, S, S] to [B, width, S/2, S/2]."""
        shortcut = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = conv(x)
            y = norm(self.early_pool(y) if i == 0 else y)
            # As in airbench96, a shortcut spans two convolutions and is added before activation.
            y = self.activation(y + shortcut if i >= 2 else y)
            shortcut, x = x, self.middle_pool(y) if i == 0 else y
        result: Tensor = self.attention(self.late_pool(x))
        return result


def whitening_filters(covariance: Tensor) -> Tensor:
    """Return filters [8C, C, 2, 2] that whiten 2×2 patches of this uncentred covariance [4C, 4C].

    They are its eigenvectors divided by √(λ + 5e-4), and their negatives, so that both signs of
    each of the 4C directions pass a rectifying activation.

    Grey images in RGB vary in four directions only. Filters of the other eight would give constant
    channels, which identity convolutions pass on and for which batch normalization multiplies
    gradients by 1/√eps = 316 per layer: training in bfloat16 then ends in NaN. The directions
    that vary, strongest first, are repeated in their place.
    """
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    passed = values / (values + _WHITENING_EPS)  # remaining variance of each direction
    live = max(1, int((passed > _LIVE_VARIANCE).sum()))
    directions = torch.arange(len(values)) % live
    filters = (vectors / (values + _WHITENING_EPS).sqrt()).T[directions]
    filters = filters.reshape(len(values), -1, 2, 2)
    return torch.cat([filters, -filters]).float()


def _in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply `layer` without autocast: bfloat16's eight bits would lose small eigenvalues."""
    device = x.device.type
    # A context that changes nothing would be exported to ONNX, and torch's meta device has none.
    if device != "meta" and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            x = layer(x.float())
        # The next convolution would cast anyway. Casting here halves the cost of the activation,
        # which gives 1.04x to 1.14x the images/s at width 32 (GELU, two trials of one thread).
        x = x.to(torch.get_autocast_dtype(device))
    else:
        x = layer(x)
    return x


def _conv(channels: int, width: int, init: str) -> nn.Conv2d:
    """Return a 3×3 convolution; with `dirac`, its first `channels` filters copy their inputs."""
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    if init == "dirac":
        nn.init.dirac_(conv.weight[:channels])
    return conv
