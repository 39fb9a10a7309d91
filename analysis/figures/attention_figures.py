"""Figures of attention: its gates by channel and class, and by place.

Axes: K classes, C channels, n shown images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.explain.attention import AttentionFacts, GateFacts
from analysis.figures.style import BLUE, PALE, SKY, VERMILLION, grid, new_figure
from common.formats import fixed, shorten_all

Floats = NDArray[np.floating[Any]]

NAMED = 20
"""Most classes that are named."""
APART = "PuOr"
"""Two hues that colour-blind readers tell apart, white where nothing differs."""
MOST_SHOWN = 10
"""Images with their spatial gates."""


def channel_gates(found: AttentionFacts, class_names: Sequence[str]) -> Figure:
    """A column a gate. Above: its mean and spread by channel. Below: how classes differ."""
    gates = [gate for gate in found.gates if gate.side is None]
    classes = len(class_names)
    figure = new_figure(1.75 + min(0.35 + 0.13 * classes, 2.6))
    axes = figure.subplots(
        2, len(gates), squeeze=False, height_ratios=[1.25, min(0.2 + 0.12 * classes, 2.4)],
        sharey="row",
    )  # fmt: skip
    deviations = [gate.class_means - gate.mean for gate in gates]
    most = max(max((float(np.nanmax(np.abs(d))) for d in deviations), default=0.0), 1e-6)
    norm = TwoSlopeNorm(0.0, -most, most)
    for column, (gate, deviation) in enumerate(zip(gates, deviations, strict=True)):
        order = np.argsort(gate.mean, kind="stable")
        _channels(axes[0][column], gate, order)
        lower = axes[1][column]
        image = lower.imshow(
            deviation[:, order], cmap=APART, norm=norm, aspect="auto", interpolation="nearest"
        )
        lower.set_xlabel(f"{len(order)} channels, sorted by mean")
        lower.set_xticks([])
        if classes <= NAMED:
            lower.set_yticks(range(classes), shorten_all(class_names, 14), fontsize=6.0)
        else:
            lower.set_yticks([])
            axes[1][0].set_ylabel(f"{classes} classes")
    axes[0][0].set_ylabel("gate")
    bar = figure.colorbar(image, ax=list(axes[1]), pad=0.01, aspect=16)
    bar.set_label("class mean − mean", fontsize=6.5)
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=6.0)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def spatial_gates(found: AttentionFacts) -> Figure:
    """The images, and below each what every spatial gate multiplies its places with."""
    gates = found.shown
    assert found.pixels is not None
    shown = min(len(found.pixels), MOST_SHOWN)
    figure = new_figure(0.2 + 0.64 * (len(gates) + 1), square=True)
    axes = figure.subplots(len(gates) + 1, shown, squeeze=False)
    for place in axes.flat:
        place.set_xticks([])
        place.set_yticks([])
        place.spines[:].set_visible(False)
    for place, pixels in zip(axes[0], found.pixels, strict=False):
        place.imshow(pixels, interpolation="nearest")
    axes[0][0].set_ylabel("image", fontsize=6.5)
    for line, gate in zip(axes[1:], gates, strict=True):
        assert gate.shown is not None
        low, high = float(gate.shown[:shown].min()), float(gate.shown[:shown].max())
        for place, values in zip(line, gate.shown, strict=False):
            place.imshow(values, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        name = gate.name.removesuffix(", places")
        line[0].set_ylabel(f"{name}\n{fixed(low, 2)} to {fixed(high, 2)}", fontsize=6.5)
    return figure


def _channels(axes: Axes, gate: GateFacts, order: NDArray[np.integer[Any]]) -> None:
    """Each channel's mean, and its spread between and within classes."""
    places = np.arange(len(order))
    mean, between = gate.mean[order], gate.between[order]
    axes.fill_between(
        places, mean - between, mean + between, color=SKY, alpha=0.7, linewidth=0, step="mid",
        label="± standard deviation between classes",
    )  # fmt: skip
    axes.plot(places, mean, color=BLUE, lw=1.0, drawstyle="steps-mid", label="mean gate")
    for sign, text in ((-1, "± standard deviation within a class"), (1, None)):
        edge = mean + sign * gate.within[order]
        axes.plot(places, edge, color=VERMILLION, lw=0.6, ls="--", label=text)
    axes.set_title(gate.name.removesuffix(", channels"))
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.set_xticks([])
    axes.spines[:].set_color(PALE)
    grid(axes)
