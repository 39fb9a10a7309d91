"""Figures of the images: how many of each class, one of each, and where nets looked.

Axes: N images, S pixels a side, K classes, C chosen images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from analysis.data_facts import Chosen, DataFacts, Maps
from analysis.formats import count, percent, shorten, shorten_all
from analysis.style import BLACK, BLUE, ORANGE, PALE, SKY, grid, new_figure
from trainables.splits import SPLITS

Array = NDArray[Any]

NAMED = 30
"""Most classes whose counts are shown one by one."""
COLUMNS = 10
"""Images in a row of the contact sheet."""
SPLIT_COLORS = {"train": PALE, "val": SKY, "holdout": ORANGE, "test": BLUE}
HATCHES = {"train": "", "val": "////", "holdout": "....", "test": ""}
HEAT = "magma"
"""Its lightness rises throughout, so that a grey print ranks the places as the colours do."""


def class_sizes(data: DataFacts, class_names: Sequence[str]) -> Figure:
    """Images of each class, split by split; of many classes the sorted curve."""
    splits = [name for name in SPLITS if name in data.counts]
    totals = np.sum([data.counts[name] for name in splits], axis=0)
    order = np.argsort(-totals, kind="stable")
    few = len(order) <= NAMED
    figure = new_figure(0.75 + 0.15 * len(order) if few else 2.2)
    axes = figure.subplots()
    left = np.zeros(len(order))
    places = np.arange(1, len(order) + 1)
    for name in splits:
        values = data.counts[name][order]
        if few:
            axes.barh(
                places, values, left=left, height=0.72, color=SPLIT_COLORS[name],
                hatch=HATCHES[name], edgecolor="white", linewidth=0.4, label=name,
            )  # fmt: skip
        else:
            axes.bar(places, values, bottom=left, width=1.0, color=SPLIT_COLORS[name], label=name)
        left += values
    whole = MaxNLocator(nbins=7, integer=True)
    thousands = FuncFormatter(lambda value, _: count(value))
    if few:
        axes.set_yticks(places, [shorten(class_names[k], 28) for k in order])
        axes.set_ylim(len(order) + 0.6, 0.4)
        axes.set_xlabel("images")
        axes.xaxis.set_major_locator(whole)
        axes.xaxis.set_major_formatter(thousands)
    else:
        axes.set_xlim(0.5, len(order) + 0.5)
        axes.set(xlabel="classes, largest first", ylabel="images")
        axes.yaxis.set_major_locator(whole)
        axes.yaxis.set_major_formatter(thousands)
    grid(axes, "x" if few else "y")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def contact_sheet(data: DataFacts, class_names: Sequence[str]) -> Figure:
    """The first training image of each class, under its name."""
    assert data.sheet is not None
    lines = -(-len(data.sheet) // COLUMNS)
    figure = new_figure(0.1 + 0.84 * lines, square=True)
    axes = figure.subplots(lines, COLUMNS, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    names = shorten_all(class_names, 13)
    for place, pixels, label in zip(axes.flat, data.sheet, data.sheet_classes, strict=False):
        place.imshow(pixels, interpolation="nearest")
        place.set_title(names[label], fontsize=5.5, weight="normal",
                        loc="center", pad=2)  # fmt: skip
    return figure


def explained(chosen: Chosen, maps: Maps, class_names: Sequence[str]) -> Figure:
    """Rows: the images, one member's maps, the ensemble's. Columns: hits, then misses."""
    member, member_maps = next(iter(maps.members.items()))
    rows: list[tuple[str, Array | None]] = [("image", None), (f"member\n{member}", member_maps)]
    if maps.ensemble is not None and len(maps.members) > 1:
        rows.append(("ensemble", maps.ensemble))
    columns = len(chosen.labels)
    figure = new_figure(0.35 + 0.78 * len(rows), square=True)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    names = shorten_all(class_names, 12)
    for line, (title, heat) in enumerate(rows):
        for column, place in enumerate(axes[line]):
            _bare(place)
            if heat is None:
                place.imshow(chosen.pixels[column], interpolation="nearest")
                _answer(place, chosen, column, names)
            else:
                _overlay(place, chosen.pixels[column], heat[column])
        axes[line][0].set_ylabel(title, fontsize=6.5)
    bar = figure.colorbar(_scale(), ax=list(axes[1:].flat), shrink=0.9, pad=0.01, aspect=30)
    bar.set_ticks([0, 1], labels=["least", "most"])
    bar.outline.set_linewidth(0.4)
    return figure


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _answer(axes: Axes, chosen: Chosen, column: int, names: Sequence[str]) -> None:
    truth, answer = int(chosen.labels[column]), int(chosen.answers[column])
    sure = _sure(float(chosen.confidences[column]))
    if truth == answer:
        text = f"✓ {names[truth]}\n{sure}"
    else:
        text = f"✗ {names[answer]}\n{sure}\nis {names[truth]}"
    axes.set_title(text, fontsize=5.6, weight="normal", loc="center", pad=2,
                   color=BLACK if truth == answer else "#8A3000")  # fmt: skip


def _sure(confidence: float) -> str:
    """`99.9%`; what would round to certainty is more than that."""
    return f"> {percent(0.999)}" if confidence > 0.9995 else percent(confidence)


def _overlay(axes: Axes, pixels: Array, heat: Array) -> None:
    """The image in pale grey under its map, with a line round the upper half of the heat."""
    grey = np.asarray(pixels, np.float64).mean(axis=2)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.imshow(heat, cmap=HEAT, vmin=0, vmax=1, alpha=0.62, interpolation="nearest")
    if heat.min() < 0.5 < heat.max():
        axes.contour(heat, levels=[0.5], colors="white", linewidths=0.7)


def _scale() -> Any:
    return ScalarMappable(cmap=HEAT)
