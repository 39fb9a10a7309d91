"""The reliability diagram: confidence against accuracy on test.

Axes: N examples, K classes. Log-probabilities are float32 [N, K], labels int [N].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.figures.style import (
    GREY,
    grid,
    legend_below,
    mark,
    new_figure,
    percent_ticks,
    stage_style,
)
from common.statistics.intervals import proportion_interval
from common.statistics.metrics import correct

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

BINS = 10
"""Bins of confidence, of equal width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledPredictions:
    """One stage's log-probabilities [N, K] after its temperature, and before it if known."""

    after: Floats
    before: Floats | None


def reliability_figure(stages: Mapping[str, ScaledPredictions], labels: Ints) -> Figure:
    """Draw accuracy by confidence with 95% Wilson intervals, one panel per stage.

    The histogram below counts the images by confidence.
    """
    figure = new_figure(3.1)
    axes = figure.subplots(
        2, max(2, len(stages)), sharex=True, squeeze=False, height_ratios=[3.2, 1.0]
    )
    for unused in axes[:, len(stages) :].flat:
        unused.set_axis_off()
    for column, (stage, predictions) in enumerate(stages.items()):
        style = stage_style(stage)
        upper, lower = axes[:, column]
        upper.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        if predictions.before is not None:
            _bins(upper, predictions.before, labels, GREY, "o", shift=-0.008)
        _bins(upper, predictions.after, labels, style.color, style.marker)
        upper.set(title=style.label, ylim=(-0.02, 1.04), xlim=(0, 1.02))
        percent_ticks(upper.yaxis)
        grid(upper)
        confidence = np.exp(predictions.after.max(axis=1))
        lower.hist(confidence, bins=np.linspace(0, 1, BINS + 1), color=style.color, rwidth=0.9)
        percent_ticks(lower.xaxis)
        lower.set_xlabel("confidence: probability of the predicted class")
    axes[0][0].set_ylabel("accuracy on test")
    axes[1][0].set_ylabel("images")
    legend_below(figure, _legend(stages))
    return figure


def _bins(
    axes: Axes, log_probs: Floats, labels: Ints, color: str, marker: str, *, shift: float = 0.0
) -> None:
    """Draw the accuracy of each bin at its mean confidence."""
    confidence, is_correct = np.exp(log_probs.max(axis=1)), correct(log_probs, labels)
    bins = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    for index in np.unique(bins):
        inside = bins == index
        hits, images = int(is_correct[inside].sum()), int(inside.sum())
        interval = proportion_interval(hits, images)
        x = float(confidence[inside].mean()) + shift
        axes.plot([x, x], [interval.low, interval.high], color=color, lw=0.8)
        axes.plot(x, hits / images, marker, ms=4, color=color,
                  mfc="white" if color == GREY else color)  # fmt: skip


def _legend(stages: Mapping[str, ScaledPredictions]) -> list[Line2D]:
    handles = [Line2D([], [], color=GREY, ls=":", label="perfectly calibrated")]
    if any(predictions.before is not None for predictions in stages.values()):
        handles.append(mark(GREY, "o", "before temperature scaling", mfc="white"))
    for stage in stages:
        style = stage_style(stage)
        handles.append(mark(style.color, style.marker, f"{style.label}, after"))
    return handles
