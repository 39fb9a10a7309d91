"""Figures by class: accuracy of each class, confusions, the student against the ensemble.

Axes: N examples, K classes. Log-probabilities are float32 [N, K], labels int [N].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.explain.confusions import confusion_matrix
from analysis.facts.predictions import ClassDifference
from analysis.figures.style import (
    BLUE,
    FAINT,
    difference_axis,
    grid,
    legend_below,
    name_rows,
    new_figure,
    percent_ticks,
    plot_difference,
    plot_interval,
    stage_style,
)
from analysis.text.labels import stage_label
from common.formats import count, shorten, shorten_all
from common.statistics.intervals import proportion_interval
from common.statistics.metrics import correct

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

MOST_NAMED = 40
"""Maximum number of classes for which the accuracy figure names every class."""
WORST_NAMED = 24
"""Number of classes named if there are more: those with the lowest accuracy of the first stage."""
MATRIX_CLASSES = 20
"""Maximum number of classes of a confusion matrix; with more, pairs are shown."""
PAIRS = 20
"""Maximum number of confused pairs shown."""
DIFFERENCES = 24
"""Maximum number of classes in the student's figure: those that differ most."""


def class_accuracy_figure(
    log_probs: Mapping[str, Floats], labels: Ints, class_names: Sequence[str]
) -> Figure:
    """Draw the accuracy of each class with its 95% Wilson interval, one mark per stage.

    Up to MOST_NAMED classes are all named, worst first. With more, a second panel shows the
    sorted accuracies of all classes, and only the WORST_NAMED are named.
    """
    sizes = np.bincount(labels, minlength=len(class_names))
    hits = {
        stage: np.bincount(labels[correct(values, labels)], minlength=len(class_names))
        for stage, values in log_probs.items()
    }
    accuracy = next(iter(hits.values())) / np.maximum(sizes, 1)
    order = np.lexsort((np.arange(len(sizes)), accuracy))
    order = order[sizes[order] > 0]
    all_named = len(order) <= MOST_NAMED
    shown = order if all_named else order[:WORST_NAMED]
    figure = new_figure(1.15 + 0.155 * len(shown))
    panels = figure.subplots(
        1, 1 if all_named else 2, squeeze=False, width_ratios=[1] if all_named else [2, 1]
    )[0]
    _accuracy_rows(panels[0], hits, sizes, shown, class_names)
    panels[0].set_title(
        "Accuracy of each class on test"
        if all_named
        else f"Accuracy of the {WORST_NAMED} worst classes on test"
    )
    if not all_named:
        _accuracy_curve(panels[1], hits, sizes, order)
    legend_below(figure, panels[0].get_legend_handles_labels()[0])
    return figure


def confusion_figure(
    log_probs: Mapping[str, Floats], labels: Ints, class_names: Sequence[str]
) -> Figure:
    """Draw a confusion matrix per stage, or with many classes the most confused pairs.

    Rows are true classes, columns predicted ones; shades are shares of the row. The diagonal
    is not shaded, since it would hide the errors.
    """
    classes = len(class_names)
    matrices = {
        stage: confusion_matrix(values, labels, classes) for stage, values in log_probs.items()
    }
    if classes > MATRIX_CLASSES:
        return _confused_pairs(matrices, class_names)
    figure = new_figure(3.8 if len(log_probs) == 1 else 3.2, square=True)
    axes = figure.subplots(1, len(log_probs), squeeze=False)[0]
    top = max(1e-9, *(float(_error_share(matrix).max()) for matrix in matrices.values()))
    for panel, (stage, matrix) in zip(axes, matrices.items(), strict=False):
        panel.imshow(_error_share(matrix), cmap="Greys", vmin=0, vmax=top * 1.15)
        panel.set_title(f"{stage_style(stage).label}: {_errors_text(matrix)}")
        _matrix_numbers(panel, matrix, class_names, top)
    bar = figure.colorbar(axes[0].images[0], ax=list(axes), shrink=0.75, pad=0.015)
    percent_ticks(bar.ax.yaxis)
    bar.set_label("share of the true class")
    bar.outline.set_linewidth(0.4)
    return figure


def student_classes_figure(
    differences: Sequence[ClassDifference], stage: str, class_names: Sequence[str]
) -> Figure:
    """Draw the student's accuracy minus the ensemble's by class, worst for the student first."""
    order = sorted(differences, key=lambda item: (-abs(item.value), item.label))[:DIFFERENCES]
    order.sort(key=lambda item: (item.value, item.label))
    figure = new_figure(0.95 + 0.16 * len(order))
    axes = figure.subplots()
    for row, item in enumerate(order):
        plot_difference(
            axes, 100 * item.value, (100 * item.low, 100 * item.high), row,
            distinguishable=item.distinguishable,
        )  # fmt: skip
    name_rows(axes, [f"{shorten(class_names[i.label], 28)}  ({i.images})" for i in order])
    axes.set_title(f"Accuracy by class: {stage_label(stage)} − ensemble")
    axes.set_xlabel("points (right of 0: the student is better; in brackets: test images)")
    difference_axis(axes, bins=7)
    return figure


def _accuracy_rows(
    axes: Axes,
    hits: Mapping[str, Ints],
    sizes: Ints,
    shown: Ints,
    class_names: Sequence[str],
) -> None:
    offsets = np.linspace(-0.18, 0.18, len(hits)) if len(hits) > 1 else [0.0]
    for offset, (stage, right) in zip(offsets, hits.items(), strict=True):
        style = stage_style(stage)
        for row, k in enumerate(shown):
            interval = proportion_interval(int(right[k]), int(sizes[k]))
            plot_interval(
                axes, right[k] / sizes[k], (interval.low, interval.high), row + offset,
                color=style.color, marker=style.marker, size=4,
            )  # fmt: skip
        axes.plot([], [], style.marker, ms=4, color=style.color, label=style.label)
    name_rows(axes, [f"{shorten(class_names[k], 28)}  ({sizes[k]})" for k in shown])
    axes.set_xlim(right=1.01)
    percent_ticks(axes.xaxis)
    axes.set_xlabel("accuracy, 95% interval (in brackets: images)")
    axes.grid(True, axis="both")


def _accuracy_curve(axes: Axes, hits: Mapping[str, Ints], sizes: Ints, order: Ints) -> None:
    for stage, right in hits.items():
        style = stage_style(stage)
        accuracy = np.sort(right[order] / sizes[order])
        axes.plot(np.arange(1, len(order) + 1), accuracy, color=style.color, drawstyle="steps-mid")
        axes.plot(1, accuracy[0], style.marker, color=style.color)
    percent_ticks(axes.yaxis)
    axes.set_xlabel("classes, worst first")
    axes.set_title(f"All {len(order)} classes")
    grid(axes)


def _error_share(matrix: NDArray[np.int64]) -> Floats:
    share: Floats = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(share, 0.0)
    return share


def _errors_text(matrix: NDArray[np.int64]) -> str:
    return f"{count(matrix.sum() - np.trace(matrix))} of {count(matrix.sum())} wrong"


def _matrix_numbers(
    axes: Axes, matrix: NDArray[np.int64], class_names: Sequence[str], top: float
) -> None:
    classes = len(class_names)
    size = 7.0 if classes <= 12 else 5.5
    names = shorten_all(class_names, 12)
    # 2.3 inches for all columns; a letter is 0.6 of the type size wide.
    upright = max(map(len, names)) * size * 0.6 / 72 > 2.3 / classes
    axes.set_xticks(range(classes), names, rotation=90 if upright else 0, fontsize=size)
    axes.set_yticks(range(classes), names, fontsize=size)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(FAINT)
    share = _error_share(matrix)
    for (i, j), number in np.ndenumerate(matrix):
        if number:
            color = BLUE if i == j else "white" if share[i, j] > 0.6 * top else "black"
            axes.text(j, i, str(number), ha="center", va="center", fontsize=size - 0.5, color=color)


def _confused_pairs(
    matrices: Mapping[str, NDArray[np.int64]], class_names: Sequence[str]
) -> Figure:
    """Draw the PAIRS most frequent confusions of all stages together, counted for each."""
    errors = sum(matrices.values()) * (1 - np.eye(len(class_names), dtype=np.int64))
    order = np.argsort(-errors, axis=None, kind="stable")[:PAIRS]
    pairs = [
        (i, j) for i, j in np.column_stack(np.unravel_index(order, errors.shape)) if errors[i, j]
    ]
    figure = new_figure(1.15 + 0.17 * max(len(pairs), 4))
    axes = figure.subplots()
    height = 0.8 / len(matrices)
    for k, (stage, matrix) in enumerate(matrices.items()):
        style = stage_style(stage)
        rows = np.arange(len(pairs)) + (k - (len(matrices) - 1) / 2) * height
        text = f"{style.label}: {_errors_text(matrix)}"
        axes.barh(rows, [matrix[pair] for pair in pairs], height, color=style.color, label=text)
    names = shorten_all(class_names, 26)
    labels = [f"{names[truth]} → {names[predicted]}" for truth, predicted in pairs]
    name_rows(axes, labels, fontsize=6.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Most confused classes on test")
    axes.set_xlabel("images: true class → predicted class")
    grid(axes, "x")
    legend_below(figure, axes.get_legend_handles_labels()[0], columns=2)
    return figure
