"""Figures of single predictions: classes, confusions, calibration.

Axes: N examples, K classes. Log-probabilities are float32 [N, K], labels int [N].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from analysis.explain.confusions import confusion_matrix
from analysis.figures.style import BLUE, FAINT, GREY, grid, new_figure, percent_ticks, stage_style
from common.formats import count, shorten, shorten_all
from common.statistics.intervals import proportion_interval

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

NAMED = 40
"""Most classes that a figure names one by one."""
WORST = 24
"""How many of more classes are named: those that the first stage gets wrong most."""
NUMBERED = 20
"""Most classes that a confusion matrix can show."""
PAIRS = 20
"""How many confusions are shown of more classes."""
BINS = 10
"""Bins of confidence in the reliability diagram."""


def per_class(log_probs: Mapping[str, Floats], labels: Ints, class_names: Sequence[str]) -> Figure:
    """Accuracy of each class with its 95% Wilson interval, one mark a stage.

    Up to NAMED classes all are named, worst first. Of more, the figure shows the sorted
    accuracies of all and the names of the WORST.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    hits = {
        stage: np.bincount(labels[_right(values, labels)], minlength=len(class_names))
        for stage, values in log_probs.items()
    }
    first = next(iter(hits.values()))
    accuracy = first / np.maximum(counts, 1)
    order = np.lexsort((np.arange(len(counts)), accuracy))
    order = order[counts[order] > 0]
    few = len(order) <= NAMED
    shown = order if few else order[:WORST]
    figure = new_figure(1.0 + 0.155 * len(shown))
    panels = figure.subplots(1, 1 if few else 2, squeeze=False, width_ratios=[1] if few else [2, 1])
    _class_rows(panels[0][0], hits, counts, shown, class_names)
    if not few:
        panels[0][0].set_title(f"The {WORST} classes most often wrong")
        _class_curve(panels[0][1], hits, counts, order)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def confusion(log_probs: Mapping[str, Floats], labels: Ints, class_names: Sequence[str]) -> Figure:
    """What is taken for what: a matrix a stage, or of many classes the commonest pairs.

    Rows are the truth, columns the answer, shades the row's share. The diagonal is left out
    of the shading: it would drown the errors that matter.
    """
    classes = len(class_names)
    matrices = {
        stage: confusion_matrix(values, labels, classes) for stage, values in log_probs.items()
    }
    if classes > NUMBERED:
        return _confused_pairs(matrices, class_names)
    alone = len(log_probs) == 1
    figure = new_figure(3.8 if alone else 3.2, square=True)
    axes = figure.subplots(1, len(log_probs), squeeze=False)[0]
    top = max(max(float(_error_share(matrix).max()) for matrix in matrices.values()), 1e-9)
    for place, (stage, matrix) in zip(axes, matrices.items(), strict=False):
        place.imshow(_error_share(matrix), cmap="Greys", vmin=0, vmax=top * 1.15)
        place.set_title(f"{stage_style(stage).label}: {_wrong_text(matrix)}")
        _matrix_labels(place, matrix, class_names, top)
    bar = figure.colorbar(axes[0].images[0], ax=list(axes), shrink=0.75, pad=0.015)
    percent_ticks(bar.ax.yaxis)
    bar.set_label("share of the class that is taken for another")
    bar.outline.set_linewidth(0.4)
    return figure


def reliability(panels: Mapping[str, tuple[Floats, Floats | None]], labels: Ints) -> Figure:
    """Confidence against accuracy, one panel a stage: (after, before its temperature).

    Bars below show where the answers lie; intervals are Wilson's, 95%.
    """
    figure = new_figure(3.1)
    axes = figure.subplots(
        2, max(2, len(panels)), sharex=True, squeeze=False, height_ratios=[3.2, 1.0]
    )
    for column in range(len(panels), axes.shape[1]):
        axes[0][column].set_axis_off()
        axes[1][column].set_axis_off()
    for column, (stage, (after, before)) in enumerate(panels.items()):
        style = stage_style(stage)
        upper, lower = axes[0][column], axes[1][column]
        upper.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        if before is not None:
            _reliability_line(upper, before, labels, GREY, "o", shift=-0.008)
        _reliability_line(upper, after, labels, style.color, style.marker)
        upper.set(title=style.label, ylim=(-0.02, 1.04), xlim=(0, 1.02))
        confidence = np.exp(after.max(axis=1))
        lower.hist(confidence, bins=np.linspace(0, 1, BINS + 1), color=style.color, rwidth=0.9)
        lower.set_xlabel("confidence: probability of the answer")
        lower.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        grid(upper)
    axes[0][0].set_ylabel("accuracy")
    axes[1][0].set_ylabel("images")
    figure.legend(handles=_reliability_legend(panels), loc="outside lower center", ncols=4)
    return figure


def _right(log_probs: Floats, labels: Ints) -> NDArray[np.bool_]:
    return np.asarray(log_probs.argmax(axis=1) == labels)


def _class_rows(
    axes: Axes,
    hits: Mapping[str, Ints],
    counts: Ints,
    shown: Ints,
    class_names: Sequence[str],
) -> None:
    offsets = np.linspace(-0.18, 0.18, len(hits)) if len(hits) > 1 else [0.0]
    rows = np.arange(len(shown))
    for offset, (stage, right) in zip(offsets, hits.items(), strict=True):
        style = stage_style(stage)
        share = right[shown] / counts[shown]
        low, high = _intervals(right[shown], counts[shown])
        axes.errorbar(
            share, rows + offset, xerr=_bars(share, low, high), fmt=style.marker, ms=4,
            color=style.color, elinewidth=0.9, label=style.label,
        )  # fmt: skip
    names = [f"{shorten(class_names[k], 28)}  ({counts[k]})" for k in shown]
    axes.set_yticks(rows, names)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(right=1.01)
    percent_ticks(axes.xaxis)
    axes.set_xlabel("accuracy on test, 95% interval (in brackets: images)")
    axes.grid(True, axis="both")


def _class_curve(axes: Axes, hits: Mapping[str, Ints], counts: Ints, order: Ints) -> None:
    for stage, right in hits.items():
        style = stage_style(stage)
        share = np.sort(right[order] / counts[order])
        axes.plot(np.arange(1, len(order) + 1), share, color=style.color, drawstyle="steps-mid")
        axes.plot(1, share[0], style.marker, color=style.color)
    percent_ticks(axes.yaxis)
    axes.set_xlabel("classes, worst first")
    axes.set_title(f"All {len(order)} classes")
    grid(axes)


def _intervals(right: Ints, counts: Ints) -> tuple[Floats, Floats]:
    pairs = [proportion_interval(int(r), int(n)) for r, n in zip(right, counts, strict=True)]
    return np.array([pair.low for pair in pairs]), np.array([pair.high for pair in pairs])


def _bars(share: Floats, low: Floats, high: Floats) -> Floats:
    """Lengths of error bars [2, …]; rounding may put a limit on the wrong side by 1e-17."""
    lengths: Floats = np.maximum([share - low, high - share], 0.0)
    return lengths


def _error_share(matrix: NDArray[np.int64]) -> Floats:
    share: Floats = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(share, 0.0)
    return share


def _wrong_text(matrix: NDArray[np.int64]) -> str:
    return f"{count(matrix.sum() - np.trace(matrix))} of {count(matrix.sum())} wrong"


def _matrix_labels(
    axes: Axes, matrix: NDArray[np.int64], class_names: Sequence[str], top: float
) -> None:
    classes = len(class_names)
    size = 7.0 if classes <= 12 else 5.5
    names = shorten_all(class_names, 12)
    # 2.3 inches for all columns, 0.6 of the type's size for a letter.
    upright = max(map(len, names)) * size * 0.6 / 72 > 2.3 / classes
    axes.set_xticks(range(classes), names, rotation=90 if upright else 0, fontsize=size)
    axes.set_yticks(range(classes), names, fontsize=size)
    axes.set(xlabel="answer", ylabel="truth")
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
    """The PAIRS commonest confusions of all stages together, counted for each."""
    errors = sum(matrices.values()) * (1 - np.eye(len(class_names), dtype=np.int64))
    order = np.argsort(-errors, axis=None, kind="stable")[:PAIRS]
    pairs = [
        (i, j) for i, j in np.column_stack(np.unravel_index(order, errors.shape)) if errors[i, j]
    ]
    figure = new_figure(1.0 + 0.17 * max(len(pairs), 4))
    axes = figure.subplots()
    height = 0.8 / len(matrices)
    for k, (stage, matrix) in enumerate(matrices.items()):
        style = stage_style(stage)
        places = np.arange(len(pairs)) + (k - (len(matrices) - 1) / 2) * height
        text = f"{style.label}: {_wrong_text(matrix)}"
        axes.barh(places, [matrix[pair] for pair in pairs], height, color=style.color, label=text)
    names = shorten_all(class_names, 26)
    ticks = [f"{names[truth]} → {names[answer]}" for truth, answer in pairs]
    axes.set_yticks(range(len(pairs)), ticks, fontsize=6.5)
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("images of test: truth → answer")
    grid(axes, "x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _reliability_line(
    axes: Axes,
    log_probs: Floats,
    labels: Ints,
    color: str,
    marker: str,
    shift: float = 0.0,
) -> None:
    confidence = np.exp(log_probs.max(axis=1))
    right = _right(log_probs, labels)
    index = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    counts = np.bincount(index, minlength=BINS)
    used = np.flatnonzero(counts)
    hits = np.bincount(index[right], minlength=BINS)[used]
    mean = np.bincount(index, weights=confidence, minlength=BINS)[used] / counts[used]
    low, high = _intervals(hits, counts[used])
    share = hits / counts[used]
    axes.errorbar(
        mean + shift, share, yerr=_bars(share, low, high), fmt=marker,
        color=color, mfc="white" if color == GREY else color, ms=4, elinewidth=0.8,
    )  # fmt: skip


def _reliability_legend(panels: Mapping[str, tuple[Floats, Floats | None]]) -> list[Line2D]:
    handles = [Line2D([], [], color=GREY, ls=":", label="perfectly calibrated")]
    if any(before is not None for _, before in panels.values()):
        handles.append(
            Line2D(
                [], [], ls="", marker="o", color=GREY, mfc="white", label="before the temperature"
            )
        )
    for stage in panels:
        style = stage_style(stage)
        text = f"{style.label}, after it"
        handles.append(Line2D([], [], ls="", marker=style.marker, color=style.color, label=text))
    return handles
