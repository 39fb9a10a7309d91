"""The convolutional family, anything timm has and the user's own, behind one interface.

Axes: B images, S×S pixels, K classes. Every net takes float [B, 3, S, S] in [0, 1],
normalizes with the training images' own mean and standard deviation, and gives logits
[B, K].

The family follows airbench (KellerJordan/cifar10-airbench): a frozen convolution that
whitens 2×2 patches, three blocks of 3×3 convolutions that start as the identity, a global
mean and one linear layer.
"""

import difflib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import timm
import torch
from timm.layers import create_attn  # type: ignore[attr-defined]
from torch import Tensor, nn

from trainables.custom import custom_model
from trainables.errors import SpecError
from trainables.recipe import Recipe
from trainables.seeds import global_torch_stream

SMALLEST_IMAGE = 8
"""Side in pixels below which three poolings leave nothing to look at."""

STATISTICS_IMAGES = 5000
"""Most images from which normalization and whitening are computed."""

_PATCH = 3 * 2 * 2
_WHITENING_EPS = 5e-4
_LIVE_VARIANCE = 1e-3

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
}


class Classifier(nn.Module):
    """A net with its normalization and its views: float images in [0, 1] to logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, *, classes: int, image_size: int, tta: str = "none") -> None:
        """`net` takes normalized images [B, 3, image_size, image_size]; `tta` as in Recipe."""
        super().__init__()
        self.classes = classes
        self.image_size = image_size
        self.tta = tta
        """Views whose logits are averaged in eval mode; set it to "none" for one look."""
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("std", torch.ones(3))
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K] of float images [B, 3, S, S] in [0, 1]."""
        x = (images - self.mean[:, None, None]) / self.std[:, None, None]
        if self.training or self.tta == "none":
            logits: Tensor = self.net(x)
            return logits
        logits = self._both_sides(x)
        if self.tta == "mirror_translate":
            # As in airbench: half of the weight is the picture's as it stands.
            padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
            moved = [padded[..., :-2, :-2], padded[..., 2:, 2:]]
            logits = logits / 2 + sum(self._both_sides(view) for view in moved) / 4
        return logits

    def _both_sides(self, x: Tensor) -> Tensor:
        logits: Tensor = (self.net(x) + self.net(x.flip(3))) / 2
        return logits


def build_model(
    recipe: Recipe,
    *,
    classes: int,
    image_size: int,
    train_images: npt.NDArray[np.uint8],
    seed: int,
) -> Classifier:
    """The net of a recipe, initialized from the stream (seed, "init").

    Mean, standard deviation and whitening come from at most 5,000 of `train_images`,
    uint8 [N, S, S, 3], evenly spaced.

    Raises:
        SpecError: there is no such model, or it cannot take images of this size.
    """
    with global_torch_stream(seed, "init"):
        model = empty_model(recipe, classes=classes, image_size=image_size)
    sample = _sample(train_images)
    mean, std = _mean_and_std(sample)
    model.mean.copy_(mean)
    model.std.copy_(std)
    if isinstance(model.net, ConvNet) and model.net.whitening is not None:
        with torch.no_grad():
            normalized = (sample - mean[:, None, None]) / std[:, None, None]
            model.net.whitening.weight.copy_(whitening_filters(normalized))
    return model


def empty_model(recipe: Recipe, *, classes: int, image_size: int) -> Classifier:
    """The same net without data, to load weights into; draws from torch's global stream."""
    if recipe.model == "convnet":
        net: nn.Module = ConvNet(recipe, classes=classes, image_size=image_size)
    elif recipe.model.startswith("timm:"):
        net = _timm_model(recipe, classes=classes, image_size=image_size)
    else:
        net = custom_model(recipe, classes=classes, image_size=image_size)
    return Classifier(net, classes=classes, image_size=image_size, tta=recipe.tta)


class ConvNet(nn.Module):
    """Whitening → three blocks of `width` × (1, middle, 4) channels → mean → linear."""

    def __init__(self, recipe: Recipe, *, classes: int, image_size: int) -> None:
        """Refuses images smaller than 8 pixels."""
        super().__init__()
        if image_size < SMALLEST_IMAGE:
            raise SpecError(
                f"convnet needs images of at least {SMALLEST_IMAGE} px, got {image_size}; "
                f"set dataset.image_size"
            )
        channels, size = 3, image_size
        self.whitening: nn.Conv2d | None = None
        self.whitening_activation: nn.Module = nn.Identity()
        if recipe.whitening:
            self.whitening = nn.Conv2d(3, 2 * _PATCH, 2)
            self.whitening.weight.requires_grad_(False)
            self.whitening_activation = _ACTIVATIONS[recipe.activation]()
            channels, size = 2 * _PATCH, size - 1
        blocks = []
        for factor in (1, recipe.middle, 4):
            width = recipe.width * factor
            blocks.append(ConvBlock(recipe, channels, width, pool=size >= 2))
            channels, size = width, max(size // 2, 1)
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(recipe.dropout)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, K] of normalized images [B, 3, S, S]."""
        if self.whitening is not None:
            x = self.whitening_activation(_in_float32(self.whitening, x))
        x = self.blocks(x)
        # airbench takes the maximum. At width 24 in 8 epochs of CIFAR-10 (JPEG) the mean gave
        # 0.670 and the maximum 0.617 on val from 5,000 images (n = 2 seeds), 0.787 and 0.778
        # from 15,000 (n = 1).
        logits: Tensor = self.head(self.dropout(x.mean(dim=(2, 3))))
        return logits


class ConvBlock(nn.Module):
    """`depth` 3×3 convolutions, one 2×2 pooling; the third and later ones are residual.

    `airbench`: conv → pool → BN → act, then conv → BN → act. `plain`: conv → BN → act
    throughout, pool at the end, so that every BN folds into the convolution before it.
    `early`: conv → BN → act → pool, then as `plain`: all but the first see a quarter of the
    pixels.
    """

    def __init__(self, recipe: Recipe, channels: int, width: int, *, pool: bool) -> None:
        """`pool` is off where a single pixel is left."""
        super().__init__()
        pooling = nn.MaxPool2d(2) if pool else nn.Identity()
        nothing = nn.Identity()
        self.early_pool = pooling if recipe.block == "airbench" else nothing
        self.middle_pool = pooling if recipe.block == "early" else nothing
        self.late_pool = pooling if recipe.block == "plain" else nothing
        self.convs = nn.ModuleList(
            _dirac_conv(channels if i == 0 else width, width) for i in range(recipe.depth)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(recipe.depth))
        self.activation = _ACTIVATIONS[recipe.activation]()
        name = recipe.attention
        self.attention = nn.Identity() if name == "none" else create_attn(name, width)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, S, S] to [B, width, S/2, S/2]."""
        shortcut = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = conv(x)
            y = norm(self.early_pool(y) if i == 0 else y)
            # As in airbench96: over two convolutions, added before the activation.
            y = self.activation(y + shortcut if i >= 2 else y)
            shortcut, x = x, self.middle_pool(y) if i == 0 else y
        result: Tensor = self.attention(self.late_pool(x))
        return result


def whitening_filters(images: Tensor) -> Tensor:
    """Filters [24, 3, 2, 2] that whiten 2×2 patches of normalized images [N, 3, S, S].

    Eigenvectors of the uncentred patch covariance over √(λ + 5e-4), and their negatives:
    twelve directions, each seen from both sides by a rectifying activation.

    Grey images vary in four directions only. The other eight would be constant channels,
    which identity convolutions hand on and which batch normalization answers with
    gradients multiplied by 1/√eps = 316 a layer: training in bfloat16 then ends in NaN.
    Their places are filled with the live directions again, the strongest first.
    """
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1)  # [N, 3, S-1, S-1, 2, 2]
    rows = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, _PATCH).double()
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    passed = values / (values + _WHITENING_EPS)  # the variance that is left of each direction
    live = max(1, int((passed > _LIVE_VARIANCE).sum()))
    which = torch.arange(_PATCH) % live
    filters = (vectors / (values + _WHITENING_EPS).sqrt()).T[which].reshape(_PATCH, 3, 2, 2)
    return torch.cat([filters, -filters]).float()


def _in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer` outside autocast: small eigenvalues do not survive bfloat16's eight bits."""
    device = x.device.type
    if torch.is_autocast_enabled(device):  # otherwise the context would be exported to ONNX
        with torch.autocast(device, enabled=False):
            x = layer(x.float())
        # What follows would be cast by the next convolution anyway; cast here, the activation
        # costs half: 1.04x to 1.14x the images/s of width 32 (GELU, two trials of one thread).
        x = x.to(torch.get_autocast_dtype(device))
    else:
        x = layer(x)
    return x


def _dirac_conv(channels: int, width: int) -> nn.Conv2d:
    """A 3×3 convolution whose first `channels` filters copy their inputs."""
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight[:channels])
    return conv


def _timm_model(recipe: Recipe, *, classes: int, image_size: int) -> nn.Module:
    name = recipe.model.removeprefix("timm:")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1, cutoff=0.0)
        raise SpecError(f"timm has no model {name!r}; the nearest name is {near[0]!r}")
    try:
        net: nn.Module = timm.create_model(
            name, pretrained=False, num_classes=classes, in_chans=3, drop_rate=recipe.dropout
        )
        with torch.no_grad():
            net.eval()(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpecError(f"model {name!r} cannot take {image_size} px images: {reason}") from None
    return net.train()


def _sample(train_images: npt.NDArray[np.uint8]) -> Tensor:
    """At most 5,000 images, evenly spaced, as float [N, 3, S, S] in [0, 1]."""
    count = min(len(train_images), STATISTICS_IMAGES)
    which = np.linspace(0, len(train_images) - 1, count).astype(np.int64)
    images = torch.from_numpy(np.ascontiguousarray(train_images[which]))
    return images.permute(0, 3, 1, 2).float() / 255


def _mean_and_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """Per channel; a constant channel has the deviation of one grey level, not zero."""
    pixels = images.double()
    mean = pixels.mean(dim=(0, 2, 3))
    return mean.float(), pixels.std(dim=(0, 2, 3), correction=0).clamp(min=1 / 255).float()
