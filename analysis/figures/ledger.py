"""Figures of the ledger: accuracy and paired differences of all stages, and their cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

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
    round_ticks,
    round_times,
    stage_style,
)
from analysis.text.labels import NOT_DISTINGUISHABLE, metric_label, stage_label
from analysis.text.ledger import LOWER_IS_BETTER, rows, verdict
from common.formats import file_size, short_duration, trim_zeros
from ensemble.ledger.ledger import Ledger, Row
from ensemble.selection.comparison import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One cost of a stage: its field of the ledger's row, and its axis."""

    field: str
    label: str
    tick: Callable[[float], str]
    ticks: Callable[[float, float], list[float]] = round_ticks


COSTS = (
    Cost(field="bytes", label="size of the weights", tick=lambda v: trim_zeros(file_size(v))),
    Cost(field="latency_ms_batch1", label="latency of one image, ms", tick=lambda v: f"{v:g}"),
    Cost(
        field="train_seconds", label="training time",
        tick=lambda v: trim_zeros(short_duration(v)), ticks=round_times,
    ),
)  # fmt: skip
MARK_WIDTH = 0.05
"""Width of a mark, as a share of the axis."""


def ledger_figure(ledger: Ledger) -> Figure:
    """Draw the accuracy of every stage, and paired differences in one panel per metric."""
    metrics = _metrics(ledger)
    stages = rows(ledger)
    differences = {m: [d for d in ledger.differences if d.metric == m] for m in metrics}
    height = max([len(stages), *(len(group) for group in differences.values())])
    figure = new_figure(0.75 + 0.24 * height)
    axes = figure.subplots(1, 1 + len(metrics), squeeze=False)[0]
    _accuracy_panel(axes[0], stages)
    for i, (panel, metric) in enumerate(zip(axes[1:], metrics, strict=True)):
        _difference_panel(panel, differences[metric], metric, named=i == 0)
    return figure


def cost_figure(ledger: Ledger) -> Figure:
    """Draw accuracy on test against size, latency and training time, each on a log scale."""
    stages = rows(ledger)
    costs = [cost for cost in COSTS if any(_positive(getattr(row, cost.field)) for row in stages)]
    figure = new_figure(2.75)
    axes = figure.subplots(1, max(1, len(costs)), sharey=True, squeeze=False)[0]
    for panel, cost in zip(axes, costs, strict=False):
        _cost_panel(panel, stages, cost)
    axes[0].set_title("Accuracy on test against cost")
    axes[0].set_ylabel("accuracy, 95% interval")
    percent_ticks(axes[0].yaxis)
    styles = [stage_style(row.stage) for row in stages]
    legend_below(figure, [mark(style.color, style.marker, style.label) for style in styles])
    return figure


def side_by_side(values: Sequence[float], limits: tuple[float, float]) -> list[float]:
    """Return positions on a log axis from low to high at which marks do not cover one another.

    Values closer than MARK_WIDTH of the axis form a group, which is spread about its middle
    at that distance; all others keep their place.
    """
    step = MARK_WIDTH * np.log(limits[1] / limits[0])
    order = np.argsort(values, kind="stable")
    logs = np.log(np.asarray(values, float))[order]
    starts = np.flatnonzero(np.diff(logs, prepend=-np.inf) >= step)
    spread = np.empty(len(logs))
    for group in np.split(np.arange(len(logs)), starts[1:]):
        middle = logs[group].mean()
        spread[group] = middle + step * (np.arange(len(group)) - (len(group) - 1) / 2)
    positions = np.empty(len(logs))
    positions[order] = np.exp(spread)
    return [float(position) for position in positions]


def _metrics(ledger: Ledger) -> Sequence[str]:
    """Return at most two metrics: accuracy first, then a proper score."""
    present = {item.metric for item in ledger.differences}
    return [metric for metric in ("accuracy", "nll", "brier") if metric in present][:2]


def _accuracy_panel(axes: Axes, stages: Sequence[Row]) -> None:
    for y, row in enumerate(stages):
        style = stage_style(row.stage)
        plot_interval(
            axes, row.accuracy, row.accuracy_interval, y, color=style.color,
            marker=style.marker, size=6,
        )  # fmt: skip
    name_rows(axes, [stage_label(row.stage) for row in stages])
    percent_ticks(axes.xaxis, bins=4)
    axes.set_title("Accuracy on test")
    axes.set_xlabel("accuracy, 95% interval")
    grid(axes, "x")


def _difference_panel(
    axes: Axes, differences: Sequence[Comparison], metric: str, *, named: bool
) -> None:
    """Draw differences a − b: accuracies in points, losses as they are."""
    loss = metric in LOWER_IS_BETTER
    scale = 1.0 if loss else 100.0
    for y, item in enumerate(differences):
        plot_difference(
            axes, scale * item.value, [scale * limit for limit in item.interval], y,
            distinguishable=verdict(item) != NOT_DISTINGUISHABLE,
        )  # fmt: skip
    names = [f"{stage_label(item.a)}\n− {stage_label(item.b)}" for item in differences]
    name_rows(axes, names if named else [""] * len(names), fontsize=6.2)
    axes.set_title(f"Difference in {metric_label(metric)}")
    unit = {"accuracy": "points ", "nll": "nats "}.get(metric, "")
    axes.set_xlabel(f"{unit}({'left' if loss else 'right'} of 0: better)")
    difference_axis(axes, bins=4)


def _cost_panel(axes: Axes, stages: Sequence[Row], cost: Cost) -> None:
    shown = [row for row in stages if _positive(getattr(row, cost.field))]
    values = [float(getattr(row, cost.field)) for row in shown]
    limits = min(values) / 1.7, max(values) * 1.7
    for row, x in zip(shown, side_by_side(values, limits), strict=True):
        style = stage_style(row.stage)
        low, high = row.accuracy_interval
        axes.plot([x, x], [low, high], color=style.color, lw=0.8)
        axes.plot(x, row.accuracy, style.marker, color=style.color, ms=5.5, mec="white", mew=0.5)
    axes.set_xscale("log")
    axes.set_xlim(limits)
    axes.xaxis.set_major_locator(FixedLocator(cost.ticks(min(values), max(values))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: cost.tick(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(cost.label)
    axes.grid(True)


def _positive(value: Any) -> bool:
    return value is not None and value > 0
