"""Figures of the data set: class sizes and a contact sheet.

Axes: N images, S pixels a side, K classes.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.facts.data import DataFacts
from analysis.figures.style import (
    BLUE,
    ORANGE,
    PALE,
    SKY,
    grid,
    legend_below,
    name_rows,
    new_figure,
)
from common.formats import count, shorten, shorten_all
from trainables.data.splits import SPLITS

MOST_NAMED = 30
"""Maximum number of classes drawn as named bars."""
SHEET_COLUMNS = 10
"""Images in a row of the contact sheet."""
SPLIT_COLORS = {"train": PALE, "val": SKY, "holdout": ORANGE, "test": BLUE}
SPLIT_HATCHES = {"train": "", "val": "////", "holdout": "....", "test": ""}


def class_sizes_figure(data: DataFacts, class_names: Sequence[str]) -> Figure:
    """Draw the images of each class by split, largest class first."""
    splits = [split for split in SPLITS if split in data.counts]
    totals = np.sum([data.counts[split] for split in splits], axis=0)
    order = np.argsort(-totals, kind="stable")
    named = len(order) <= MOST_NAMED
    figure = new_figure(0.9 + 0.15 * len(order) if named else 2.35)
    axes = figure.subplots()
    axes.set_title("Images of each class, by split")
    (_bars if named else _areas)(axes, data, splits, order)
    if named:
        name_rows(axes, [shorten(class_names[k], 28) for k in order])
        axes.set_xlabel("images")
    else:
        axes.set_xlim(-0.5, len(order) - 0.5)
        axes.set(xlabel="classes, largest first", ylabel="images")
    counts = axes.xaxis if named else axes.yaxis
    counts.set_major_locator(MaxNLocator(nbins=7, integer=True))
    counts.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    grid(axes, "x" if named else "y")
    legend_below(figure, axes.get_legend_handles_labels()[0])
    return figure


def contact_sheet_figure(data: DataFacts, class_names: Sequence[str]) -> Figure:
    """Draw the first training images of each class under its name.

    Each row has ten images. With few classes, each class fills one or more columns; with
    many, each class has one image.
    """
    assert data.sheet is not None
    shown = list(dict.fromkeys(data.sheet_classes))
    across = max(1, SHEET_COLUMNS // len(shown))
    most = max(data.sheet_classes.count(label) for label in shown)
    rows = -(-len(shown) // SHEET_COLUMNS) * -(-most // across)
    figure = new_figure(0.1 + (0.7 if most > 1 else 0.84) * rows, square=True)
    axes = figure.subplots(rows, SHEET_COLUMNS, squeeze=False)
    for cell in axes.flat:
        cell.set_axis_off()
    names = shorten_all(class_names, 13)
    drawn = dict.fromkeys(shown, 0)
    for pixels, label in zip(data.sheet, data.sheet_classes, strict=True):
        row, column = divmod(drawn[label], across)
        below, beside = divmod(shown.index(label), SHEET_COLUMNS // across)
        cell = axes[row + below][beside * across + column]
        cell.imshow(pixels, interpolation="nearest")
        if drawn[label] == 0:
            cell.set_title(names[label], fontsize=5.5, weight="normal",
                           loc="center", pad=2)  # fmt: skip
        drawn[label] += 1
    return figure


def _bars(axes: Axes, data: DataFacts, splits: Sequence[str], order: np.ndarray) -> None:
    """Stack the splits of each class in a horizontal bar."""
    left = np.zeros(len(order))
    for split in splits:
        values = data.counts[split][order]
        axes.barh(
            np.arange(len(order)), values, left=left, height=0.72, color=SPLIT_COLORS[split],
            hatch=SPLIT_HATCHES[split], edgecolor="white", linewidth=0.4, label=split,
        )  # fmt: skip
        left += values


def _areas(axes: Axes, data: DataFacts, splits: Sequence[str], order: np.ndarray) -> None:
    """Stack the splits of many classes without gaps between them."""
    bottom = np.zeros(len(order))
    for split in splits:
        values = data.counts[split][order]
        axes.bar(np.arange(len(order)), values, bottom=bottom, width=1.0, color=SPLIT_COLORS[split],
                 label=split)  # fmt: skip
        bottom += values
