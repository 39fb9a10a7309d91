"""Build the network of a recipe: convnet, wide ResNet, timm or custom, behind one interface.

Axes: B images, S×S pixels, C channels, K classes. Every network takes float [B, C, S, S] in
[0, 1], normalizes with the mean and standard deviation of the training images, and returns logits
[B, K].
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from common.sampling import evenly_spaced
from common.seeds import global_torch_stream
from trainables.hyperparameters import HUB, Architecture
from trainables.nets.auxiliary_heads import AuxiliaryHeads
from trainables.nets.classifier import Classifier
from trainables.nets.convnet import ConvNet, whitening_filters
from trainables.nets.custom import custom_model
from trainables.nets.head import head_weight_names, linear_head
from trainables.nets.hub import check_hub
from trainables.nets.image_statistics import (
    kept,
    mean_and_std,
    patch_covariance,
    pixel_chunks,
    pixels_digest,
)
from trainables.nets.pretrained import expected_norm, load_backbone
from trainables.nets.timm_net import timm_net
from trainables.nets.wide_resnet import WideResNet
from trainables.recipe import Recipe

STATISTICS_IMAGES = 5000
"""Largest number of images from which normalization and whitening are computed."""


def build_model(
    recipe: Recipe,
    *,
    classes: int,
    image_size: int,
    train_images: npt.NDArray[np.uint8],
    train_indices: npt.NDArray[np.int64] | None = None,
    seed: int,
) -> Classifier:
    """Build the network of a recipe, initialized from the random stream (seed, "init").

    Mean, standard deviation and whitening are computed from at most 5,000 evenly spaced images
    among `train_indices` (all by default) of `train_images`, uint8 [N, S, S, C], which may be
    memory-mapped; later networks of the process reuse them. Pretrained weights bring their own mean
    and standard deviation.

    Raises:
        SpecError: the model does not exist, or cannot take images of this size.
    """
    with global_torch_stream(seed, "init"):
        model = empty_model(
            recipe,
            classes=classes,
            image_size=image_size,
            channels=train_images.shape[-1],
            download=recipe.architecture.pretrained == HUB,
        )
    chosen = np.arange(len(train_images)) if train_indices is None else train_indices
    chosen = chosen[evenly_spaced(len(chosen), STATISTICS_IMAGES)]
    digest = pixels_digest(train_images, chosen)
    mean, std = kept(digest, lambda: mean_and_std(pixel_chunks(train_images, chosen)))
    model.mean.copy_(mean)
    model.std.copy_(std)
    if isinstance(model.net, ConvNet) and model.net.whitening is not None:
        covariance = kept(
            # The number of threads determines how the sums are split.
            (digest, model.input_size, torch.get_num_threads()),
            lambda: patch_covariance(
                model.normalized(_floats(pixels)) for pixels in pixel_chunks(train_images, chosen)
            ),
        )
        with torch.no_grad():
            model.net.whitening.weight.copy_(whitening_filters(covariance))
    if recipe.architecture.pretrained:
        _use_pretrained(model, recipe.architecture)
    return model


def empty_model(
    recipe: Recipe, *, classes: int, image_size: int, channels: int = 3, download: bool = False
) -> Classifier:
    """Build the network of a recipe without data, e.g. to load weights into it.

    `channels` are the images': 3 for RGB, 1 for grey, or any other number. Initial weights are
    drawn from torch's global generator; with `download`, they come from timm's hub.
    """
    architecture = recipe.architecture
    side = architecture.input_size or image_size
    if download:
        check_hub(architecture)
    if architecture.model == "convnet":
        net: nn.Module = ConvNet(
            architecture, classes=classes, image_size=side, in_channels=channels
        )
    elif architecture.model.startswith("timm:"):
        net = timm_net(
            architecture,
            classes=classes,
            image_size=side,
            channels=channels,
            download=download,
        )
    elif architecture.model.startswith("wrn-"):
        net = WideResNet(architecture, classes=classes, in_channels=channels)
    else:
        net = custom_model(architecture, classes=classes, image_size=side, channels=channels)
    model = Classifier(
        net,
        classes=classes,
        image_size=image_size,
        input_size=side,
        tta=architecture.tta,
        channels=channels,
    )
    if recipe.loss.rotation_weight or recipe.loss.superclass_weight:
        model.auxiliary = AuxiliaryHeads(
            recipe.loss, linear_head(net, architecture.model).in_features
        )
    return model


def _use_pretrained(model: Classifier, architecture: Architecture) -> None:
    """Load weights (the hub's are already in place); set their normalization; clear the head.

    The new head starts at zero (Kolesnikov et al., 2020, "Big Transfer"): every class is equally
    likely, and the first gradients that reach the features are small. timm draws the weights of an
    EfficientNet's head up to 1/√K, which starts at a loss of 4 to 10 nats for K = 10.
    """
    norm = None
    if architecture.pretrained != HUB:
        norm = load_backbone(model.net, architecture)
    head = head_weight_names(model.net)
    with torch.no_grad():
        for name, value in model.net.state_dict().items():
            if name in head:
                value.zero_()
    norm = norm or expected_norm(model.net, channels=model.channels)
    if norm is not None:
        model.mean.copy_(norm[0])
        model.std.copy_(norm[1])


def _floats(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Return uint8 [N, S, S, C] as float [N, C, S, S] in [0, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
