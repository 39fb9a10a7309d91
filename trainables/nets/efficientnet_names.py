"""Translate the parameter names of EfficientNet-PyTorch into timm's.

EfficientNet-PyTorch numbers all blocks in one row: `_blocks.4._expand_conv.weight`. timm numbers
them by stage: `blocks.2.1.conv_pw.weight`. A stage's blocks have the same number of output
channels, and no two neighbouring stages do, so the shapes of the weights tell the stages.
"""

import re
from collections.abc import Mapping

from torch import Tensor

_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
"""timm's names of the layers outside blocks."""

_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""timm's names of the layers in a block that first widens its input."""

_SEPARABLE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
"""timm's names of the layers in a block that does not."""

_IN_BLOCK = re.compile(r"_blocks\.(\d+)\.(_\w+)\.(\w+)")


def has_efficientnet_names(weights: Mapping[str, Tensor]) -> bool:
    """Return whether the weights have EfficientNet-PyTorch's names."""
    return "_conv_stem.weight" in weights and "_blocks.0._project_conv.weight" in weights


def with_timm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights by timm's names; a name of no known layer is kept as it is."""
    places = _places(weights)
    return {_timm_name(name, weights, places): value for name, value in weights.items()}


def _timm_name(
    name: str, weights: Mapping[str, Tensor], places: Mapping[int, tuple[int, int]]
) -> str:
    match = _IN_BLOCK.fullmatch(name)
    if match is None:
        layer, _, leaf = name.partition(".")
        return f"{_OUTSIDE[layer]}.{leaf}" if layer in _OUTSIDE else name
    number, layer, leaf = int(match[1]), match[2], match[3]
    names = _INVERTED if f"_blocks.{number}._expand_conv.weight" in weights else _SEPARABLE
    if layer not in names or number not in places:
        return name
    stage, block = places[number]
    return f"blocks.{stage}.{block}.{names[layer]}.{leaf}"


def _places(weights: Mapping[str, Tensor]) -> dict[int, tuple[int, int]]:
    """Return each block's stage and its number in the stage."""
    places: dict[int, tuple[int, int]] = {}
    stage, block, before = -1, 0, None
    while (projection := weights.get(f"_blocks.{len(places)}._project_conv.weight")) is not None:
        channels = len(projection)
        stage, block = (stage, block + 1) if channels == before else (stage + 1, 0)
        places[len(places)], before = (stage, block), channels
    return places
