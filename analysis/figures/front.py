"""The figure of the pool's Pareto front: NLL against latency and size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.figures.style import (
    GREY,
    legend_below,
    mark,
    new_figure,
    round_ticks,
    stage_style,
)
from common.formats import file_size, trim_zeros
from ensemble.selection.selection import FrontPoint

BUDGET = "#b03030"
INK = "#202020"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontCost:
    """One cost of a point: its field, its axis, and the budget that limits it."""

    field: str
    label: str
    tick: Callable[[float], str]
    budget: float | None


def front_figure(
    points: Sequence[FrontPoint], *, max_latency_ms: float | None, max_bytes: float | None
) -> Figure:
    """Draw NLL on holdout against latency and size, and the budgets as vertical lines.

    `points` have known sizes and latencies.
    """
    costs = (
        FrontCost(
            field="latency_ms",
            label="latency of one image, ms",
            tick=lambda value: f"{value:g}",
            budget=max_latency_ms,
        ),
        FrontCost(
            field="bytes",
            label="size of the file",
            tick=lambda value: trim_zeros(file_size(value)),
            budget=max_bytes,
        ),
    )
    figure = new_figure(2.75)
    axes = figure.subplots(1, 2, sharey=True)
    for panel, cost in zip(axes, costs, strict=True):
        _panel(panel, points, cost)
    axes[0].set_title("NLL on holdout against cost")
    axes[0].set_ylabel("NLL on holdout, nats")
    legend_below(figure, _legend(points, costs))
    return figure


def _panel(axes: Axes, points: Sequence[FrontPoint], cost: FrontCost) -> None:
    values = [float(getattr(point, cost.field)) for point in points]
    for point, x in zip(points, values, strict=True):
        if point.kind == "ensemble":
            style = stage_style(point.name)
            color, marker = style.color, style.marker
        else:
            color, marker = (INK if point.efficient else GREY), "o"
        filled = color if point.efficient else "white"
        axes.plot(x, point.nll, marker, ms=5, color=color, mfc=filled, mew=0.8)
    limits = [*values, *([] if cost.budget is None else [cost.budget])]
    axes.set_xscale("log")
    axes.set_xlim(min(limits) / 1.5, max(limits) * 1.5)
    if cost.budget is not None:
        axes.axvline(cost.budget, color=BUDGET, lw=0.9, ls="--")
    axes.xaxis.set_major_locator(FixedLocator(round_ticks(min(values), max(values))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: cost.tick(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(cost.label)
    axes.grid(True)


def _legend(points: Sequence[FrontPoint], costs: Sequence[FrontCost]) -> list[object]:
    handles: list[object] = [
        mark(INK, "o", "trial on the front"),
        mark(GREY, "o", "other trial", mfc="white"),
    ]
    for point in points:
        if point.kind == "ensemble":
            style = stage_style(point.name)
            handles.append(mark(style.color, style.marker, style.label, mfc="white"))
    if any(cost.budget is not None for cost in costs):
        handles.append(mark(BUDGET, "|", "budget"))
    return handles
