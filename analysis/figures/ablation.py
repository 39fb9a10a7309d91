"""The figure of an ablation: the worth of each factor of the recipe, with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.facts.ablation import HARMS, HELPS, Result, by_factor, effect, factor_label
from analysis.figures.style import (
    BLUE,
    FAINT,
    GREY,
    PALE,
    VERMILLION,
    difference_axis,
    drawing,
    legend_below,
    mark,
    name_rows,
    new_figure,
    plot_interval,
    save_figure,
)
from analysis.text.labels import NOT_DISTINGUISHABLE
from common.formats import plural
from search.ablation.ablation import ALL

MARKS: Mapping[str, tuple[str, str]] = {
    HELPS: (BLUE, "o"),
    HARMS: (VERMILLION, "s"),
    NOT_DISTINGUISHABLE: (GREY, "o"),
}
"""Colour and marker by effect."""


def ablation_figure(result: Result) -> Figure:
    """Draw what each factor is worth in accuracy (left) and NLL (right), most useful on top."""
    factors = by_factor(result)
    order = _order(factors)
    figure = new_figure(1.15 + 0.24 * len(order))
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, factors, order, "accuracy", scale=100.0)
    _panel(right, factors, order, "nll", scale=1.0)
    name_rows(left, [factor_label(factor) for factor in order])
    left.set_title("Worth in accuracy")
    left.set_xlabel("with − without the factor, points (right of 0: it helps)")
    right.set_title("Worth in NLL")
    right.tick_params(axis="y", length=0)
    right.set_xlabel("with − without the factor, nats (left of 0: it helps)")
    handles = [
        mark(color, marker, text, ms=5, mfc="white" if text == NOT_DISTINGUISHABLE else color)
        for text, (color, marker) in MARKS.items()
    ]
    seeds = f"each of {plural(result['seeds'], 'seed')} (line: 95% interval of the mean)"
    legend_below(figure, [*handles, mark(PALE, "|", seeds, ms=7, mew=1.0)])
    return figure


def save_ablation_figure(result: Result, path: Path) -> None:
    """Draw the figure and write it as PNG."""
    with drawing():
        save_figure(ablation_figure(result), path)


def _order(factors: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """Sort factors by falling worth in accuracy; all of them together come last."""

    def key(factor: str) -> tuple[bool, bool, float]:
        value = factors[factor]["accuracy"]["value"]
        return factor == ALL, value is None, -(value or 0.0)

    return sorted(factors, key=key)


def _panel(
    axes: Axes,
    factors: Mapping[str, Mapping[str, Result]],
    order: Sequence[str],
    metric: str,
    *,
    scale: float,
) -> None:
    for row, factor in enumerate(order):
        item = factors[factor][metric]
        if item["value"] is None:
            continue
        name = effect(item)
        color, marker = MARKS[name]
        seeds = [scale * value for value in item["by_seed"]]
        axes.plot(seeds, [row] * len(seeds), "|", color=PALE, ms=7, mew=1.0)
        interval = None if item["interval"] is None else [scale * x for x in item["interval"]]
        plot_interval(
            axes, scale * item["value"], interval, row, color=color, marker=marker,
            filled=name != NOT_DISTINGUISHABLE,
        )  # fmt: skip
    if order[-1] == ALL:
        axes.axhline(len(order) - 1.5, color=FAINT, lw=0.8)
    difference_axis(axes)
