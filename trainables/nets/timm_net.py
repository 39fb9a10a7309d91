"""Build timm's models, with clear errors for wrong names and image sizes."""

import difflib
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from common.errors import MissingWeightsError, SpecError
from trainables.hyperparameters import Architecture
from trainables.initial_weights import PACKAGED
from trainables.nets.drop_path import has_drop_path
from trainables.nets.hub import hub_file


def timm_net(
    architecture: Architecture,
    *,
    classes: int,
    image_size: int,
    channels: int = 3,
    download: bool = False,
) -> nn.Module:
    """Build the timm model of `timm:NAME` and run it on a black image of `image_size`.

    Models of a fixed size, e.g. vision transformers, are built for `image_size`, and all models
    for images of `channels`. With `download`, timm adapts the hub's weights to both.

    Raises:
        SpecError: there is no such model, it cannot take images of this size, it has no paths to
            drop, or its weights cannot be downloaded.
    """
    name = architecture.model.removeprefix("timm:")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1, cutoff=0.0)
        raise SpecError(f"timm has no model {name!r}; did you mean {near[0]!r}?")
    if not download:
        return _built(name, architecture, classes, image_size, channels)
    try:
        file = hub_file(architecture)
    except MissingWeightsError as error:
        # If the model cannot be built without weights either, that is the error to report.
        _built(name, architecture, classes, image_size, channels)
        raise MissingWeightsError(
            f"{error}; use weights that are installed ({_packaged_choice(architecture.model)}), or "
            "download their .safetensors file elsewhere and set `pretrained` to its path"
        ) from error
    return _built(name, architecture, classes, image_size, channels, weights=file)


def _built(
    name: str,
    architecture: Architecture,
    classes: int,
    image_size: int,
    channels: int,
    *,
    weights: Path | None = None,
) -> nn.Module:
    # From a file, timm needs no connection; by itself it would ask the hub about every network.
    source = None if weights is None else {"file": str(weights)}
    try:
        net: nn.Module = timm.create_model(
            name,
            pretrained=weights is not None,
            num_classes=classes,
            in_chans=channels,
            drop_rate=architecture.dropout,
            pretrained_cfg_overlay=source,
            **_optional_arguments(name, architecture, image_size),
        )
        if architecture.drop_path and not has_drop_path(net):
            raise _no_path_to_drop(architecture)
        if architecture.stem == "small":
            _use_small_stem(net, name)
        with torch.no_grad():
            net.eval()(torch.zeros(1, channels, image_size, image_size))
    except SpecError:
        raise
    except (RuntimeError, AssertionError, ValueError, TypeError, ArithmeticError) as error:
        if isinstance(error, TypeError) and "drop_path_rate" in str(error):
            raise _no_path_to_drop(architecture) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpecError(
            f"model {name!r} cannot take {image_size} px images: {reason.rstrip('.')}; "
            f"{_fitting_size(name, image_size)}choose another model"
        ) from None
    return net.train()


def _optional_arguments(name: str, architecture: Architecture, image_size: int) -> dict[str, Any]:
    """Return the arguments that only some models take."""
    about = timm.get_pretrained_cfg(name, allow_unregistered=False)
    options: dict[str, Any] = {}
    if about is not None and about.fixed_input_size:  # timm's mark of models with an `img_size`
        options["img_size"] = image_size
    if architecture.drop_path:  # 0 keeps the model's default
        options["drop_path_rate"] = architecture.drop_path
    return options


def _no_path_to_drop(architecture: Architecture) -> SpecError:
    return SpecError(
        f"model {architecture.model!r} has no stochastic depth; set drop_path to 0 instead of "
        f"{architecture.drop_path}, or choose another model"
    )


def _packaged_choice(model: str) -> str:
    """Return the recipe values that select packaged weights, of the same model if it has some."""
    nets = [net.model for net in PACKAGED]
    return f"pretrained: package with model: {model if model in nets else nets[0]}"


def _fitting_size(name: str, image_size: int) -> str:
    """Return a suggestion of the model's own image size, or an empty string if it is unknown."""
    about = timm.get_pretrained_cfg(name, allow_unregistered=False)
    side = None if about is None else about.input_size[-1]
    helps = side is not None and side != image_size
    return f"set dataset.image_size to {side}, or " if helps else ""


def _use_small_stem(net: nn.Module, name: str) -> None:
    """Keep the full resolution for the first stage, as ResNets for CIFAR do (He et al., 2016)."""
    first = getattr(net, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not hasattr(net, "maxpool"):
        raise SpecError(f"stem: small needs a ResNet of timm; {name!r} has another stem")
    net.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
