"""The figure of accuracy on corrupted images."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.style import (
    difference_axis,
    grid,
    legend_below,
    mark,
    name_rows,
    new_figure,
    percent_ticks,
    plot_difference,
    plot_interval,
    stage_style,
)
from analysis.text.labels import NOT_DISTINGUISHABLE, stage_label
from analysis.text.ledger import verdict
from analysis.text.robustness import FAMILIES, main_stages
from ensemble.ledger.ledger import Ledger
from ensemble.ledger.robustness import Robustness

STEP = 0.2
"""Distance between the marks of two stages in a row."""


def robustness_figure(ledger: Ledger) -> Figure:
    """Draw the accuracy by family, and paired differences on all corrupted images, if any."""
    robustness, stages = ledger.robustness, main_stages(ledger)
    assert robustness is not None
    figure = new_figure(2.6)
    panels = figure.subplots(1, 1 + bool(robustness.differences), squeeze=False)[0]
    _families(panels[0], robustness, stages)
    if robustness.differences:
        _differences(panels[1], robustness)
    styles = [stage_style(stage) for stage in stages]
    legend_below(figure, [mark(style.color, style.marker, style.label) for style in styles])
    return figure


def _families(axes: Axes, robustness: Robustness, stages: tuple[str, ...]) -> None:
    for place, stage in enumerate(stages):
        style, shift = stage_style(stage), STEP * (place - (len(stages) - 1) / 2)
        for y, family in enumerate(FAMILIES):
            row = robustness.row(stage, family)
            if row is not None:
                plot_interval(
                    axes, row.accuracy, row.accuracy_interval, y + shift, color=style.color,
                    marker=style.marker,
                )  # fmt: skip
    name_rows(axes, FAMILIES)
    percent_ticks(axes.xaxis, bins=5)
    axes.set_title("Accuracy on corrupted test images")
    axes.set_xlabel("accuracy, 95% interval")
    grid(axes, "x")


def _differences(axes: Axes, robustness: Robustness) -> None:
    items = [item for item in robustness.differences if item.metric == "accuracy"]
    for y, item in enumerate(items):
        plot_difference(
            axes, 100 * item.value, [100 * limit for limit in item.interval], y,
            distinguishable=verdict(item) != NOT_DISTINGUISHABLE,
        )  # fmt: skip
    names = [f"{stage_label(item.a)}\n− {stage_label(item.b)}" for item in items]
    name_rows(axes, names, fontsize=6.2)
    axes.set_title("Difference on all of them")
    axes.set_xlabel("points (right of 0: better)")
    difference_axis(axes, bins=5)
