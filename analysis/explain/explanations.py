"""Explanations of a run's predictions, as values. Only computing them needs torch.

Axes: C chosen images, S pixels a side, K classes, G weights of an attention layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.explain.confusions import ConfusedPair
from analysis.explain.examples import Examples

Array = np.ndarray[Any, Any]
Floats = NDArray[np.floating[Any]]

METHODS = ("Grad-CAM", "saliency")
"""Kinds of heat map, in the order of a figure's columns."""
CELLS = 4
"""Minimum cells a side of a feature map for Grad-CAM, if the network has such a layer."""
COPIES = 32
"""Noisy copies of an image that saliency averages over; each costs a forward and a backward
pass."""
NOISE = 0.05
"""Standard deviation of that noise, as a share of the image's range of values. The usual 15%
is too much for networks of small images, see analysis/explain/saliency.py."""
PERCENTILE = 99.0
"""Percentile of a saliency map that is scaled to 1, since a few pixels are far larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMapColumn:
    """One method's maps of one network, or their mean over the ensemble's members."""

    method: str
    source: str
    """`best single` or `ensemble`."""
    maps: Array
    """float32 [C, S, S], from 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMaps:
    """The evidence for each chosen image's prediction: maps float32 [C, S, S], from 0 to 1."""

    trial: str = ""
    """The best single network."""
    single: Mapping[str, Array] = field(default_factory=dict)
    """Its maps by method; a method that failed is missing."""
    ensemble: Mapping[str, Array] = field(default_factory=dict)
    """Weighted mean of the members' maps by method; empty without an ensemble."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Reasons for missing maps, by `TRIAL` or `TRIAL, METHOD`."""

    def columns(self) -> list[HeatMapColumn]:
        """Return the available maps in the order of the figure."""
        sources = (("best single", self.single), ("ensemble", self.ensemble))
        return [
            HeatMapColumn(method=method, source=source, maps=maps[method])
            for method in METHODS
            for source, maps in sources
            if method in maps
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """The weights, from 0 to 1, by which one attention layer multiplies a feature map."""

    block: str
    """`block 1`, counted from the input."""
    side: int | None
    """Cells a side of spatial weights; None for channel weights."""
    mean: Floats
    """Mean over images, float [G]."""
    spread: Floats
    """Standard deviation over images, float [G]."""
    class_means: Floats
    """Mean over the images of each class, float [K, G]; NaN for a class without images."""
    shown: Floats | None = None
    """Spatial weights for the shown images, float [C, side, side]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionWeights:
    """The attention weights of one network, layer by layer."""

    trial: str
    kind: str
    """`se`, `eca` or `cbam`."""
    images: int
    """Number of val images behind means and spreads."""
    layers: tuple[LayerWeights, ...]
    pixels: Array | None = None
    """The shown images, uint8 [C, S, S, 3]; None without spatial weights."""

    @property
    def channel_layers(self) -> tuple[LayerWeights, ...]:
        """The layers that weigh channels."""
        return tuple(layer for layer in self.layers if layer.side is None)

    @property
    def shown_layers(self) -> tuple[LayerWeights, ...]:
        """The spatial layers with weights for the shown images; one cell has no position."""
        return tuple(
            layer for layer in self.layers if layer.shown is not None and (layer.side or 0) > 1
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanations:
    """The explanations of a run's predictions that exist so far."""

    stage: str | None = None
    """The stage whose test predictions are explained; None before test is predicted."""
    pairs: tuple[ConfusedPair, ...] = ()
    """The most confused pairs of classes."""
    confused: Examples | None = None
    """Examples of these pairs, pair by pair."""
    examples: Examples | None = None
    """A typical correct prediction and the worst error of each class."""
    heat_maps: HeatMaps = field(default_factory=HeatMaps)
    """Heat maps of `examples`."""
    not_explained: str = ""
    """Reason that there are no examples and heat maps; empty if there are."""
    attention: AttentionWeights | None = None
    """The attention weights of one of the run's networks, if any has attention."""
    attention_missing: str = ""
    """Reason that these weights could not be measured; empty otherwise."""
