"""The figure of an ablation: the effect of each factor of the recipe, with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.facts.ablation import (
    HARMS,
    HELPS,
    AblationResult,
    FactorEffect,
    factor_label,
)
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


def ablation_figure(result: AblationResult) -> Figure:
    """Draw the effect of each factor on accuracy (left) and NLL (right), most useful on top."""
    order = _order(result)
    figure = new_figure(1.15 + 0.24 * len(order))
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, [result.by_factor[factor]["accuracy"] for factor in order], scale=100.0)
    _panel(right, [result.by_factor[factor]["nll"] for factor in order], scale=1.0)
    name_rows(left, [factor_label(factor) for factor in order])
    left.set_title("Effect on accuracy")
    left.set_xlabel("with − without the factor, points (right of 0: it helps)")
    right.set_title("Effect on NLL")
    right.tick_params(axis="y", length=0)
    right.set_xlabel("with − without the factor, nats (left of 0: it helps)")
    handles = [
        mark(color, marker, text, ms=5, mfc="white" if text == NOT_DISTINGUISHABLE else color)
        for text, (color, marker) in MARKS.items()
    ]
    seeds = f"each of {plural(result.seeds, 'seed')} (line: 95% interval of the mean)"
    legend_below(figure, [*handles, mark(PALE, "|", seeds, ms=7, mew=1.0)])
    return figure


def save_ablation_figure(result: AblationResult, path: Path) -> None:
    """Draw the figure and write it as PNG."""
    with drawing():
        save_figure(ablation_figure(result), path)


def _order(result: AblationResult) -> list[str]:
    """Sort factors by falling effect on accuracy; all of them together come last."""

    def key(factor: str) -> tuple[bool, bool, float]:
        value = result.by_factor[factor]["accuracy"].value
        return factor == ALL, value is None, -(value or 0.0)

    return sorted(result.by_factor, key=key)


def _panel(axes: Axes, effects: Sequence[FactorEffect], *, scale: float) -> None:
    for row, effect in enumerate(effects):
        if effect.value is None:
            continue
        color, marker = MARKS[effect.direction]
        seeds = [scale * value for value in effect.by_seed]
        axes.plot(seeds, [row] * len(seeds), "|", color=PALE, ms=7, mew=1.0)
        interval = None if effect.interval is None else [scale * x for x in effect.interval]
        plot_interval(
            axes, scale * effect.value, interval, row, color=color, marker=marker,
            filled=effect.direction != NOT_DISTINGUISHABLE,
        )  # fmt: skip
    if effects[-1].factor == ALL:
        axes.axhline(len(effects) - 1.5, color=FAINT, lw=0.8)
    difference_axis(axes)
