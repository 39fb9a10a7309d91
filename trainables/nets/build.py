"""Our own nets, anything timm has and the user's own, behind one interface.

Axes: B images, S×S pixels, K classes. Every net takes float [B, 3, S, S] in [0, 1],
normalizes with the training images' own mean and standard deviation, and gives logits
[B, K].

Our own nets stand in convnet.py and wideresnet.py.
"""

import difflib
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import Tensor, nn

from common.errors import SpecError
from common.sampling import evenly_spaced
from common.seeds import global_torch_stream
from trainables.hyperparameters import HUB, Architecture
from trainables.nets.auxiliary_heads import Auxiliary
from trainables.nets.convnet import ConvNet, whitening_filters
from trainables.nets.custom import custom_model
from trainables.nets.pretrained import classifier_of, expected_norm, load_backbone
from trainables.nets.wide_resnet import WideResNet
from trainables.recipe import Recipe

STATISTICS_IMAGES = 5000
"""Most images from which normalization and whitening are computed."""


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
        self.auxiliary: Auxiliary | None = None
        """Heads of auxiliary tasks, which only training asks."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, K] of float images [B, 3, S, S] in [0, 1]."""
        x = self.normalized(images)
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

    def features(self, images: Tensor) -> Tensor:
        """What the last linear layer sees, [B, C], of images as in `forward`; one view."""
        net: Any = self.net
        features: Tensor = net.forward_head(
            net.forward_features(self.normalized(images)), pre_logits=True
        )
        return features

    def normalized(self, images: Tensor) -> Tensor:
        """What the net takes: images [B, 3, S, S] with mean 0 and deviation 1 a channel."""
        return (images - self.mean[:, None, None]) / self.std[:, None, None]

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
    uint8 [N, S, S, 3], evenly spaced; with `recipe.pretrained`, from where the weights come.

    Raises:
        SpecError: there is no such model, or it cannot take images of this size.
    """
    with global_torch_stream(seed, "init"):
        model = empty_model(
            recipe,
            classes=classes,
            image_size=image_size,
            download=recipe.architecture.pretrained == HUB,
        )
    sample = _sample(train_images)
    mean, std = _mean_and_std(sample)
    model.mean.copy_(mean)
    model.std.copy_(std)
    if isinstance(model.net, ConvNet) and model.net.whitening is not None:
        with torch.no_grad():
            normalized = (sample - mean[:, None, None]) / std[:, None, None]
            model.net.whitening.weight.copy_(whitening_filters(normalized))
    if recipe.architecture.pretrained:
        _use_pretrained(model, recipe.architecture)
    return model


def _use_pretrained(model: Classifier, architecture: Architecture) -> None:
    norm = None
    if architecture.pretrained != HUB:
        norm = load_backbone(model.net, architecture.pretrained)
    norm = norm or expected_norm(model.net)
    if norm is not None:
        model.mean.copy_(norm[0])
        model.std.copy_(norm[1])


def empty_model(
    recipe: Recipe, *, classes: int, image_size: int, download: bool = False
) -> Classifier:
    """The same net without data, to load weights into; draws from torch's global stream.

    With `download`, timm's own weights come from its hub.
    """
    architecture = recipe.architecture
    if download:
        check_hub(architecture)
    if architecture.model == "convnet":
        net: nn.Module = ConvNet(architecture, classes=classes, image_size=image_size)
    elif architecture.model.startswith("timm:"):
        net = _timm_model(architecture, classes=classes, image_size=image_size, download=download)
    elif architecture.model.startswith("wrn-"):
        net = WideResNet(architecture, classes=classes)
    else:
        net = custom_model(architecture, classes=classes, image_size=image_size)
    model = Classifier(net, classes=classes, image_size=image_size, tta=architecture.tta)
    if recipe.loss.rotation_weight or recipe.loss.superclass_weight:
        model.auxiliary = Auxiliary(recipe.loss, classifier_of(net, architecture.model).in_features)
    return model


def check_hub(architecture: Architecture) -> None:
    """Refuse a net that is not timm's: its hub has no weights for others.

    Raises:
        SpecError: the model's name.
    """
    if not architecture.model.startswith("timm:"):
        raise SpecError(f"pretrained: hub is for models of timm, got model {architecture.model!r}")


def _timm_model(
    architecture: Architecture, *, classes: int, image_size: int, download: bool
) -> nn.Module:
    name = architecture.model.removeprefix("timm:")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1, cutoff=0.0)
        raise SpecError(f"timm has no model {name!r}; the nearest name is {near[0]!r}")
    try:
        net: nn.Module = timm.create_model(
            name,
            pretrained=download,
            num_classes=classes,
            in_chans=3,
            drop_rate=architecture.dropout,
        )
        if architecture.stem == "small":
            _use_small_stem(net, name)
        with torch.no_grad():
            net.eval()(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpecError(
            f"model {name!r} cannot take {image_size} px images: {reason.rstrip('.')}; "
            f"{_fitting_size(name, image_size)}choose another net"
        ) from None
    except Exception as error:
        if not download:
            raise
        # Whatever a hub's client raises: no network, no such weights, a full disk.
        raise SpecError(
            f"the weights of {name!r} cannot be downloaded ({type(error).__name__}); fetch them "
            "where there is a network and give their .safetensors file as `pretrained`"
        ) from error
    return net.train()


def _fitting_size(name: str, image_size: int) -> str:
    """The half of a mend where timm says for which images a net was made."""
    about = timm.get_pretrained_cfg(name, allow_unregistered=False)
    side = None if about is None else about.input_size[-1]
    known = side is not None and side != image_size
    return f"set dataset.image_size to {side}, or " if known else ""


def _use_small_stem(net: nn.Module, name: str) -> None:
    """Keep all pixels for the first stage, as ResNets for CIFAR do (He et al., 2016)."""
    first = getattr(net, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not hasattr(net, "maxpool"):
        raise SpecError(f"stem: small is for the ResNets of timm; {name!r} begins otherwise")
    net.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()


def _sample(train_images: npt.NDArray[np.uint8]) -> Tensor:
    """At most 5,000 images, evenly spaced, as float [N, 3, S, S] in [0, 1]."""
    chosen = train_images[evenly_spaced(len(train_images), STATISTICS_IMAGES)]
    images = torch.from_numpy(np.ascontiguousarray(chosen))
    return images.permute(0, 3, 1, 2).float() / 255


def _mean_and_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """Per channel; a constant channel has the deviation of one grey level, not zero."""
    pixels = images.double()
    mean = pixels.mean(dim=(0, 2, 3))
    return mean.float(), pixels.std(dim=(0, 2, 3), correction=0).clamp(min=1 / 255).float()
