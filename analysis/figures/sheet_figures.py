"""Sheets of examples: where nets looked in hits and misses, and what is taken for what.

Axes: C chosen images, S pixels a side, K classes. Cells have a fixed size in inches, so that
images are as large as the page allows and stand in line.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.explain.confusions import ConfusedPair
from analysis.explain.examples import EACH, Chosen, Maps
from analysis.figures.style import BLACK, GREY, WIDTH
from common.formats import count, percent, shorten_all

Array = NDArray[Any]

HEAT = "magma"
"""Its lightness rises throughout, so that a grey print ranks the places as the colours do."""
WRONG = "#8A3000"
MARGIN = 0.04
"""Inches at the edges."""
LARGEST = 0.56
"""Inches: most that an image of the sheet measures."""
TALLEST = 8.3
"""Inches: most that the sheet is high, so that its caption fits below it."""
WORDS = 1.3
"""Room for an answer in words, as a multiple of an image."""
GAP = 0.04
"""Inches between cells."""


def explained(chosen: Chosen, maps: Maps, class_names: Sequence[str]) -> Figure:
    """A row a class: its hit on the left, its miss on the right, each with its maps."""
    columns = maps.columns()
    across = WORDS + 1 + len(columns)
    rows = len(chosen.classes)
    bare = WIDTH - 2 * MARGIN - 0.1 - 2 * (len(columns) + 1) * GAP
    top, bottom = 0.42, 0.24
    cell = min(LARGEST, bare / (2 * across), (TALLEST - top - bottom) / rows - GAP)
    figure = Figure(figsize=(WIDTH, top + bottom + rows * (cell + GAP)))
    names = shorten_all(class_names, 11)
    half = across * cell + (len(columns) + 1) * GAP
    for side, right in enumerate((True, False)):
        left = MARGIN + side * max(half + 0.1, WIDTH / 2)
        _headings(figure, left, top, cell, columns, "hits" if right else "misses")
        for row, label in enumerate(chosen.classes):
            y = top + row * (cell + GAP)
            index = chosen.find(label, right=right)
            if index is None:
                text = f"no {'hit' if right else 'miss'}\nof {names[label]}"
                _words(figure, left, y, cell, text, GREY)
                continue
            _words(figure, left, y, cell, *_answer(chosen, index, names))
            x = left + WORDS * cell
            _image(_cell(figure, x, y, cell), chosen.pixels[index])
            for number, (method, _, heat) in enumerate(columns, 1):
                place = _cell(figure, x + number * (cell + GAP), y, cell)
                grey = None if method == "saliency" else chosen.pixels[index]
                _overlay(place, grey, heat[index])
    _scale(figure, "little", "much")
    return figure


def confused(chosen: Chosen, pairs: Sequence[ConfusedPair], class_names: Sequence[str]) -> Figure:
    """Two pairs a line, each with its most confident errors."""
    names = shorten_all(class_names, 16)
    lines = -(-len(pairs) // 2)
    apart, above, below = 0.2, 0.26, 0.2
    cell = (WIDTH - 2 * MARGIN - apart - 2 * (EACH - 1) * GAP) / (2 * EACH)
    figure = Figure(figsize=(WIDTH, lines * (above + cell + below)))
    half = EACH * cell + (EACH - 1) * GAP + apart
    for number, pair in enumerate(pairs):
        left = MARGIN + (number % 2) * half
        y = (number // 2) * (above + cell + below) + above
        title = (
            f"{names[pair.truth]} → {names[pair.answer]}: {count(pair.errors)} of "
            f"{count(pair.images)} ({percent(pair.rate)})"
        )
        _text(figure, left, y - 0.05, title, size=7.0, weight="bold")
        examples = np.flatnonzero((chosen.labels == pair.truth) & (chosen.answers == pair.answer))
        for place, index in enumerate(examples):
            x = left + place * (cell + GAP)
            _image(_cell(figure, x, y, cell), chosen.pixels[index])
            sure = _sure(float(chosen.confidences[index]))
            _text(figure, x + cell / 2, y + cell + 0.11, sure, size=6.0, align="center")
    return figure


def _headings(
    figure: Figure,
    left: float,
    top: float,
    cell: float,
    columns: Sequence[tuple[str, str, Array]],
    kind: str,
) -> None:
    """What stands in the columns of one half."""
    _text(figure, left, top - 0.07, kind, size=7.5, weight="bold")
    several = len({whose for _, whose, _ in columns}) > 1
    for number, (method, whose, _) in enumerate(columns, 1):
        x = left + (WORDS + number + 0.5) * cell + number * GAP
        text = f"{method}\n{whose}" if several else method
        _text(figure, x, top - 0.07, text, size=5.8, align="center")


def _answer(chosen: Chosen, index: int, names: Sequence[str]) -> tuple[str, str]:
    """What was answered, how surely, and the truth of a miss; and the colour of that."""
    truth, answer = int(chosen.labels[index]), int(chosen.answers[index])
    sure = _sure(float(chosen.confidences[index]))
    if truth == answer:
        return f"✓ {names[truth]}\n{sure}", BLACK
    return f"✗ {names[answer]}\n{sure}\nis {names[truth]}", WRONG


def _sure(confidence: float) -> str:
    """`99.9%`; what would round to certainty is more than that."""
    return f"> {percent(0.999)}" if confidence > 0.9995 else percent(confidence)


def _words(figure: Figure, x: float, y: float, cell: float, text: str, color: str) -> None:
    _text(figure, x, y + cell / 2, text, size=min(6.0, 11.3 * cell), color=color, middle=True)


def _text(
    figure: Figure,
    x: float,
    y: float,
    text: str,
    *,
    size: float,
    color: str = BLACK,
    align: str = "left",
    weight: str = "normal",
    middle: bool = False,
) -> None:
    """Text at inches from the left and from the top; it ends at `y`, or has it as its middle."""
    width, height = figure.get_size_inches()
    figure.text(
        x / width, 1 - y / height, text, fontsize=size, color=color, ha=align, weight=weight,
        va="center" if middle else "bottom", linespacing=1.15,
    )  # fmt: skip


def _cell(figure: Figure, x: float, y: float, size: float) -> Axes:
    """A square of `size` at inches from the left and from the top, without ticks and frame."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((x / width, 1 - (y + size) / height, size / width, size / height))
    axes.set_axis_off()
    return axes


def _image(axes: Axes, pixels: Array) -> None:
    axes.imshow(pixels, interpolation="nearest")


def _overlay(axes: Axes, pixels: Array | None, heat: Array) -> None:
    """A map alone; or over the image in grey, with a line round the upper half of the heat."""
    if pixels is None:
        axes.imshow(heat, cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
        return
    grey = np.asarray(pixels, np.float64).mean(axis=2)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.imshow(heat, cmap=HEAT, vmin=0, vmax=1, alpha=0.62, interpolation="nearest")
    if heat.min() < 0.5 < heat.max():
        axes.contour(heat, levels=[0.5], colors="white", linewidths=0.6)


def _scale(figure: Figure, low: str, high: str) -> None:
    """The colours of maps, at the foot of the figure."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes(((width - 1.6) / width, 0.09 / height, 1.1 / width, 0.07 / height))
    bar = figure.colorbar(ScalarMappable(cmap=HEAT), cax=axes, orientation="horizontal")
    bar.set_ticks([])
    bar.outline.set_linewidth(0.3)
    _text(figure, width - 1.66, height - 0.125, low, size=5.8, align="right", middle=True)
    _text(figure, width - 0.44, height - 0.125, high, size=5.8, middle=True)
