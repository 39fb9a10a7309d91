"""Figures that explain predictions: examples with heat maps, confused pairs, attention weights.

Axes: C chosen images, S pixels a side, K classes, G channels. On sheets of examples, cells
have a fixed size in inches, so that images are as large as the page allows and aligned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.explain.confusions import ConfusedPair
from analysis.explain.examples import EXAMPLES_PER_PAIR, Examples
from analysis.explain.explanations import AttentionWeights, HeatMapColumn, HeatMaps, LayerWeights
from analysis.figures.style import BLACK, BLUE, GREY, PALE, SKY, WIDTH, grid, new_figure
from common.formats import count, fixed, percent, shorten_all

Array = NDArray[Any]

HEAT = "magma"
"""Colour map whose lightness rises steadily, so a grey print keeps the order of values."""
DIVERGING = "PuOr"
"""Colour map of two hues that colour-blind readers can tell apart, white at zero."""
WRONG = "#8A3000"
MARGIN = 0.04
"""Inches at the edges."""
GAP = 0.04
"""Inches between cells."""
HALVES_GAP = 0.1
"""Inches between correct predictions and errors."""
LARGEST_CELL = 0.56
"""Inches: largest image on a sheet."""
TALLEST_SHEET = 8.3
"""Inches: tallest sheet that leaves room for its caption."""
PREDICTION_WIDTH = 1.3
"""Room for a prediction in words, as a multiple of an image's width."""
NAMED_CLASSES = 20
"""Maximum number of classes named in the figure of channel weights."""
SPATIAL_IMAGES = 10
"""Maximum number of images shown with their spatial weights."""


def heat_map_figure(examples: Examples, heat_maps: HeatMaps, class_names: Sequence[str]) -> Figure:
    """Draw a row per class: a correct prediction on the left, an error on the right, with maps."""
    columns = heat_maps.columns()
    across = PREDICTION_WIDTH + 1 + len(columns)
    rows = len(examples.classes)
    top, bottom = 0.42, 0.24
    bare = WIDTH - 2 * MARGIN - HALVES_GAP - 2 * (len(columns) + 1) * GAP
    cell = min(LARGEST_CELL, bare / (2 * across), (TALLEST_SHEET - top - bottom) / rows - GAP)
    half = across * cell + (len(columns) + 1) * GAP
    sheet = _Sheet(
        figure=Figure(figsize=(WIDTH, top + bottom + rows * (cell + GAP))),
        cell=cell,
        examples=examples,
        columns=columns,
        names=shorten_all(class_names, 11),
    )
    for side, correct in enumerate((True, False)):
        left = MARGIN + side * max(half + HALVES_GAP, WIDTH / 2)
        _titles(sheet, left, top - 0.07, correct=correct)
        for row, label in enumerate(examples.classes):
            _row(sheet, left, top + row * (cell + GAP), label, correct=correct)
    _colour_scale(sheet.figure, "low", "high")
    return sheet.figure


def confused_figure(
    examples: Examples, pairs: Sequence[ConfusedPair], class_names: Sequence[str]
) -> Figure:
    """Draw two pairs per row, each with its most confident errors."""
    names = shorten_all(class_names, 16)
    rows = -(-len(pairs) // 2)
    apart, above, below = 0.2, 0.26, 0.2
    each = EXAMPLES_PER_PAIR
    cell = (WIDTH - 2 * MARGIN - apart - 2 * (each - 1) * GAP) / (2 * each)
    figure = Figure(figsize=(WIDTH, rows * (above + cell + below)))
    half = each * cell + (each - 1) * GAP + apart
    for number, pair in enumerate(pairs):
        left = MARGIN + (number % 2) * half
        y = (number // 2) * (above + cell + below) + above
        title = (
            f"{names[pair.truth]} → {names[pair.predicted]}: {count(pair.errors)} of "
            f"{count(pair.images)} ({percent(pair.rate)})"
        )
        _text(figure, left, y - 0.05, title, size=7.0, weight="bold")
        shown = np.flatnonzero(
            (examples.labels == pair.truth) & (examples.predictions == pair.predicted)
        )
        for column, index in enumerate(shown):
            x = left + column * (cell + GAP)
            _image(_cell(figure, x, y, cell), examples.pixels[index])
            confidence = _confidence(float(examples.confidences[index]))
            _text(figure, x + cell / 2, y + cell + 0.11, confidence, size=6.0, align="center")
    return figure


def channel_weights_figure(attention: AttentionWeights, class_names: Sequence[str]) -> Figure:
    """Draw a column per layer: each channel's mean weight above, class differences below."""
    layers = attention.channel_layers
    classes = len(class_names)
    figure = new_figure(1.75 + min(0.35 + 0.13 * classes, 2.6))
    axes = figure.subplots(
        2, len(layers), squeeze=False, height_ratios=[1.25, min(0.2 + 0.12 * classes, 2.4)],
        sharey="row",
    )  # fmt: skip
    differences = [layer.class_means - layer.mean for layer in layers]
    largest = max(1e-6, *(float(np.nanmax(np.abs(values))) for values in differences))
    norm = TwoSlopeNorm(0.0, -largest, largest)
    for column, (layer, values) in enumerate(zip(layers, differences, strict=True)):
        order = np.argsort(layer.mean, kind="stable")
        _mean_weights(axes[0][column], layer, order)
        lower = axes[1][column]
        image = lower.imshow(
            values[:, order], cmap=DIVERGING, norm=norm, aspect="auto", interpolation="nearest"
        )
        lower.set_xlabel(f"{len(order)} channels, by mean weight")
        lower.set_xticks([])
        lower.set_yticks([])
        if classes <= NAMED_CLASSES:
            lower.set_yticks(range(classes), shorten_all(class_names, 14), fontsize=6.0)
    axes[0][0].set_ylabel("weight")
    axes[1][0].set_ylabel("class" if classes <= NAMED_CLASSES else f"{classes} classes")
    bar = figure.colorbar(image, ax=list(axes[1]), pad=0.01, aspect=16)
    bar.set_label("class mean − mean", fontsize=6.5)
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=6.0)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def spatial_weights_figure(attention: AttentionWeights) -> Figure:
    """Draw images, and below each image its weights from every spatial layer."""
    layers = attention.shown_layers
    assert attention.pixels is not None
    images = attention.pixels[:SPATIAL_IMAGES]
    figure = new_figure(0.2 + 0.64 * (len(layers) + 1), square=True)
    axes = figure.subplots(len(layers) + 1, len(images), squeeze=False)
    for cell in axes.flat:
        cell.set_xticks([])
        cell.set_yticks([])
        cell.spines[:].set_visible(False)
    for cell, pixels in zip(axes[0], images, strict=True):
        cell.imshow(pixels, interpolation="nearest")
    axes[0][0].set_ylabel("image", fontsize=6.5)
    for row, layer in zip(axes[1:], layers, strict=True):
        assert layer.shown is not None
        weights = layer.shown[: len(images)]
        low, high = float(weights.min()), float(weights.max())
        for cell, values in zip(row, weights, strict=True):
            cell.imshow(values, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        row[0].set_ylabel(f"{layer.block}\n{fixed(low, 2)} to {fixed(high, 2)}", fontsize=6.5)
    return figure


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """A sheet of examples: its content and the size of its images."""

    figure: Figure
    cell: float
    """Inches a side."""
    examples: Examples
    columns: Sequence[HeatMapColumn]
    names: Sequence[str]


def _titles(sheet: _Sheet, left: float, y: float, *, correct: bool) -> None:
    heading = "correct" if correct else "wrong"
    _text(sheet.figure, left, y, heading, size=7.5, weight="bold")
    several = len({column.source for column in sheet.columns}) > 1
    for number, column in enumerate(sheet.columns, 1):
        x = left + (PREDICTION_WIDTH + number + 0.5) * sheet.cell + number * GAP
        title = f"{column.method}\n{column.source}" if several else column.method
        _text(sheet.figure, x, y, title, size=5.8, align="center")


def _row(sheet: _Sheet, left: float, y: float, label: int, *, correct: bool) -> None:
    """Draw one example of a class: its prediction in words, the image, its heat maps."""
    figure, cell, examples = sheet.figure, sheet.cell, sheet.examples
    size, middle = min(6.0, 11.3 * cell), y + cell / 2
    index = examples.find(label, correct=correct)
    if index is None:
        text = f"{sheet.names[label]}:\nnone {'correct' if correct else 'wrong'}"
        _text(figure, left, middle, text, size=size, color=GREY, middle=True)
        return
    text, color = _prediction_text(examples, index, sheet.names)
    _text(figure, left, middle, text, size=size, color=color, middle=True)
    x = left + PREDICTION_WIDTH * cell
    _image(_cell(figure, x, y, cell), examples.pixels[index])
    for number, column in enumerate(sheet.columns, 1):
        axes = _cell(figure, x + number * (cell + GAP), y, cell)
        background = None if column.method == "saliency" else examples.pixels[index]
        _heat_map(axes, background, column.maps[index])


def _prediction_text(examples: Examples, index: int, names: Sequence[str]) -> tuple[str, str]:
    """Return a prediction with its confidence (and the truth if wrong), and a text colour."""
    truth, predicted = int(examples.labels[index]), int(examples.predictions[index])
    confidence = _confidence(float(examples.confidences[index]))
    if truth == predicted:
        return f"✓ {names[truth]}\n{confidence}", BLACK
    return f"✗ {names[predicted]}\n{confidence}\ntrue: {names[truth]}", WRONG


def _confidence(probability: float) -> str:
    """Format a probability as `99.9%`, never rounded up to certainty."""
    return f"> {percent(0.999)}" if probability > 0.9995 else percent(probability)


def _heat_map(axes: Axes, background: Array | None, heat: Array) -> None:
    """Draw a map alone, or over the image in grey with a contour at half of its maximum."""
    if background is None:
        axes.imshow(heat, cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
        return
    grey = np.asarray(background, np.float64).mean(axis=2)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.imshow(heat, cmap=HEAT, vmin=0, vmax=1, alpha=0.62, interpolation="nearest")
    if heat.min() < 0.5 < heat.max():
        axes.contour(heat, levels=[0.5], colors="white", linewidths=0.6)


def _colour_scale(figure: Figure, low: str, high: str) -> None:
    """Draw the heat maps' colour bar at the bottom of the figure."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes(((width - 1.6) / width, 0.09 / height, 1.1 / width, 0.07 / height))
    bar = figure.colorbar(ScalarMappable(cmap=HEAT), cax=axes, orientation="horizontal")
    bar.set_ticks([])
    bar.outline.set_linewidth(0.3)
    y = height - 0.125
    _text(figure, width - 1.66, y, f"evidence: {low}", size=5.8, align="right", middle=True)
    _text(figure, width - 0.44, y, high, size=5.8, middle=True)


def _mean_weights(axes: Axes, layer: LayerWeights, order: NDArray[np.integer[Any]]) -> None:
    """Draw each channel's mean weight and its standard deviation over images."""
    channels = np.arange(len(order))
    mean, spread = layer.mean[order], layer.spread[order]
    axes.fill_between(
        channels, mean - spread, mean + spread, color=SKY, alpha=0.7, linewidth=0, step="mid",
        label="± standard deviation over images",
    )  # fmt: skip
    axes.plot(channels, mean, color=BLUE, lw=1.0, drawstyle="steps-mid", label="mean weight")
    axes.set_title(layer.block)
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.set_xticks([])
    axes.spines[:].set_color(PALE)
    grid(axes)


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
    """Write text at inches from the left and top edges; `y` is the text's bottom, or its middle."""
    width, height = figure.get_size_inches()
    figure.text(
        x / width, 1 - y / height, text, fontsize=size, color=color, ha=align, weight=weight,
        va="center" if middle else "bottom", linespacing=1.15,
    )  # fmt: skip


def _cell(figure: Figure, x: float, y: float, size: float) -> Axes:
    """Add a square of `size` inches, x and y inches from the left and top edges."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((x / width, 1 - (y + size) / height, size / width, size / height))
    axes.set_axis_off()
    return axes


def _image(axes: Axes, pixels: Array) -> None:
    axes.imshow(pixels, interpolation="nearest")
