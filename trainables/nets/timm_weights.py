"""Adapt weights of timm's networks to other image sizes and numbers of channels, as timm does."""

import sys
from collections.abc import Mapping, Sequence

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

_RGB = 3
_IMAGE_AXES = 4


def weights_for_channels(net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights for RGB images, adapted to the channels of the network's first layers.

    One channel gets the sum of the filters of the three. Otherwise C channels repeat the three
    filters, times 3/C.
    """
    result = dict(weights)
    for layer in _first_layers(net):
        name = f"{layer}.weight"
        module, weight = net.get_submodule(layer), result.get(name)
        if not isinstance(module, nn.Conv2d) or weight is None or weight.ndim != _IMAGE_AXES:
            continue
        if weight.shape[1] == _RGB != module.in_channels and module.groups == 1:
            result[name] = adapt_input_conv(module.in_channels, weight)
    return result


def weights_for_size(net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights whose position embeddings are interpolated to the network's image size.

    timm defines for each family how its files are read; families without it are left unchanged.
    """
    read = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if read is None:
        return dict(weights)
    try:
        result: dict[str, Tensor] = read(dict(weights), net)
    except (KeyError, RuntimeError, ValueError, AttributeError, TypeError):
        return dict(weights)  # weights of another network; the comparison names the difference
    return result


def norm_for_channels(values: Sequence[float], channels: int) -> Tensor:
    """Return one value per channel, from those of RGB: their mean for grey, else repeated."""
    rgb = torch.tensor(values)
    if channels == 1:
        return rgb.mean()[None]
    return rgb.repeat(-(-channels // len(rgb)))[:channels]


_IMAGE_AXES = 4


def _first_layers(net: nn.Module) -> tuple[str, ...]:
    about = getattr(net, "pretrained_cfg", None) or {}
    names = about.get("first_conv") or ()
    return (names,) if isinstance(names, str) else tuple(names)
