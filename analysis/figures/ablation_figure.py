"""The figure of an ablation: what each factor is worth, with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.facts.ablation import HARMS, HELPS, Result, by_factor, effect, factor_label
from analysis.figures.style import (
    BLACK,
    BLUE,
    FAINT,
    GREY,
    PALE,
    VERMILLION,
    drawing,
    grid,
    new_figure,
    save_figure,
)
from analysis.text.wording import NOT_DISTINGUISHABLE
from common.formats import plural, signed
from search.ablation.ablation import ALL

MARKS: Mapping[str, tuple[str, str, str]] = {
    HELPS: (BLUE, "o", BLUE),
    HARMS: (VERMILLION, "s", VERMILLION),
    NOT_DISTINGUISHABLE: (GREY, "o", "white"),
}
"""By effect: colour, marker, and what the marker is filled with."""


def ablation_figure(result: Result) -> Figure:
    """Left: points of accuracy. Right: NLL. The factor that is worth most stands on top."""
    factors = by_factor(result)
    order = _order(factors)
    figure = new_figure(1.15 + 0.24 * len(order))
    left, right = figure.subplots(1, 2, sharey=True)
    _panel(left, factors, order, "accuracy", scale=100.0)
    _panel(right, factors, order, "nll", scale=1.0)
    left.set_yticks(range(len(order)), [factor_label(factor) for factor in order])
    left.set_ylim(len(order) - 0.4, -0.6)
    left.set_title("Worth in accuracy")
    left.set_xlabel("full recipe less without, points (right of 0: it helps)")
    right.set_title("Worth in NLL")
    right.tick_params(axis="y", length=0)
    right.set_xlabel("full recipe less without, nats (left of 0: it helps)")
    about = f"each of {plural(result['seeds'], 'seed')}; line: 95% interval of the mean"
    figure.legend(
        handles=[
            *(
                Line2D([], [], ls="", ms=5, marker=marker, color=color, mfc=fill, label=text)
                for text, (color, marker, fill) in MARKS.items()
            ),
            Line2D([], [], ls="", ms=3, marker="|", color=PALE, mew=1.0, label=about),
        ],
        loc="outside lower center",
        ncols=4,
    )
    return figure


def save_ablation_figure(result: Result, path: Path) -> None:
    """Draw it into a PNG file."""
    with drawing():
        save_figure(ablation_figure(result), path)


def _order(factors: Mapping[str, Mapping[str, Result]]) -> list[str]:
    """By falling worth in accuracy; all of them together come last."""

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
    for y, factor in enumerate(order):
        item = factors[factor][metric]
        if item["value"] is None:
            continue
        color, marker, fill = MARKS[effect(item)]
        seeds = [scale * value for value in item["by_seed"]]
        axes.plot(seeds, [y] * len(seeds), "|", color=PALE, ms=7, mew=1.0)
        if item["interval"] is not None:
            axes.plot([scale * limit for limit in item["interval"]], [y, y], color=color, lw=1.2)
        axes.plot(scale * item["value"], y, marker, ms=5, color=color, mfc=fill)
    if order[-1] == ALL:
        axes.axhline(len(order) - 1.5, color=FAINT, lw=0.8)
    axes.axvline(0, color=BLACK, lw=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(5, prune="both"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    grid(axes, "x")


def _tick(value: float) -> str:
    return "0" if abs(value) < 1e-12 else signed(value, 3).rstrip("0").rstrip(".")
