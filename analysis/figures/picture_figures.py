"""Figures of the images: how many of each class, and one of each.

Axes: N images, S pixels a side, K classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from analysis.facts.data import DataFacts
from analysis.figures.style import BLUE, ORANGE, PALE, SKY, grid, new_figure
from common.formats import count, shorten, shorten_all
from trainables.data.splits import SPLITS

Array = NDArray[Any]

NAMED = 30
"""Most classes whose counts are shown one by one."""
COLUMNS = 10
"""Images in a row of the contact sheet."""
SPLIT_COLORS = {"train": PALE, "val": SKY, "holdout": ORANGE, "test": BLUE}
HATCHES = {"train": "", "val": "////", "holdout": "....", "test": ""}


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
    """The first training images of each class, below its name.

    Ten images a row. A class has a column of its own, or several where classes are few; of
    many classes, one image is shown of each, row after row.
    """
    assert data.sheet is not None
    shown = list(dict.fromkeys(data.sheet_classes))
    each = max(1, COLUMNS // len(shown))
    most = max(data.sheet_classes.count(label) for label in shown)
    lines = -(-len(shown) // COLUMNS) * -(-most // each)
    figure = new_figure(0.1 + (0.7 if most > 1 else 0.84) * lines, square=True)
    axes = figure.subplots(lines, COLUMNS, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    names = shorten_all(class_names, 13)
    nth = dict.fromkeys(shown, 0)
    for pixels, label in zip(data.sheet, data.sheet_classes, strict=True):
        row, column = divmod(nth[label], each)
        below, beside = divmod(shown.index(label), COLUMNS // each)
        place = axes[row + below][beside * each + column]
        place.imshow(pixels, interpolation="nearest")
        if nth[label] == 0:
            place.set_title(names[label], fontsize=5.5, weight="normal",
                            loc="center", pad=2)  # fmt: skip
        nth[label] += 1
    return figure
