"""Figures of the ensemble: diversity of its members, and accuracy against cost.

Axes: M members, N examples, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from analysis.facts.trials import TrialFacts
from analysis.figures.style import (
    BLUE,
    GREEN,
    GREY,
    MarkStyle,
    legend_below,
    mark,
    name_rows,
    new_figure,
    percent_ticks,
    round_ticks,
    round_times,
    stage_style,
)
from common.formats import compact, percent, short_duration, trim_zeros
from common.statistics.intervals import proportion_interval
from ensemble.selection import diversity

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

MOST_NUMBERED = 10
"""Maximum number of members whose shares are written in the matrices."""
KINDS = {
    "search": MarkStyle(label="search trial", color=GREY, marker="o"),
    "seed": MarkStyle(label="seed of the best trial", color=GREEN, marker="v"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldoutAccuracy:
    """Accuracy on holdout of finished trials and of the ensemble."""

    hits: Mapping[str, int]
    """Correct predictions by trial."""
    images: int
    members: Mapping[str, float]
    """The ensemble's weights by trial."""
    ensemble: float | None
    """The ensemble's cross-fitted accuracy; None without an ensemble."""


def trial_costs_figure(trials: Sequence[TrialFacts], holdout: HoldoutAccuracy) -> Figure:
    """Draw accuracy on holdout of every finished trial against training time and size.

    The ensemble is drawn at the total cost of its members.
    """
    scored = [trial for trial in trials if trial.trial in holdout.hits]
    figure = new_figure(2.75)
    left, right = figure.subplots(1, 2, sharey=True)
    _cost_panel(left, scored, holdout, lambda trial: trial.seconds)
    _cost_panel(right, scored, holdout, lambda trial: trial.params)
    _log_axis(left, round_times, short_duration)
    _log_axis(right, round_ticks, compact)
    left.set_title("Accuracy on holdout against cost")
    left.set(xlabel="training time", ylabel="accuracy, 95% interval")
    right.set_xlabel("parameters")
    percent_ticks(left.yaxis)
    legend_below(figure, _costs_legend(holdout))
    return figure


def disagreement_figure(
    log_probs: Mapping[str, Floats], weights: Mapping[str, float], labels: Ints | None
) -> Figure:
    """Draw how often two members disagree, how often both are wrong, and each member's weight."""
    names = list(log_probs)
    predictions = np.stack([log_probs[name].argmax(axis=1) for name in names])
    labels = labels if labels is not None and len(labels) == predictions.shape[1] else None
    figure = new_figure(max(2.0, 0.75 + 0.26 * len(names)))
    axes = figure.subplots(1, 2 if labels is None else 3)
    differing = diversity.disagreement(predictions)
    _member_matrix(axes[0], differing, names, "Disagree, %", diagonal=False)
    if labels is not None:
        both = diversity.double_fault(predictions, labels)
        _member_matrix(axes[1], both, names, "Both wrong, %", diagonal=True)
        axes[1].set_yticks([])
    _weight_bars(axes[-1], names, weights, predictions, labels)
    return figure


def _cost_panel(
    axes: Axes,
    trials: Sequence[TrialFacts],
    holdout: HoldoutAccuracy,
    cost: Callable[[TrialFacts], float | None],
) -> None:
    for trial in sorted(trials, key=lambda trial: trial.trial in holdout.members):
        x = cost(trial)
        if not x:
            continue
        style = KINDS["seed" if trial.kind == "seed" else "search"]
        hits = holdout.hits[trial.trial]
        interval = proportion_interval(hits, holdout.images)
        axes.plot([x, x], [interval.low, interval.high], color=style.color, lw=0.6, alpha=0.6)
        axes.plot(x, hits / holdout.images, style.marker, ms=5, color=style.color, mew=0.8,
                  mfc=style.color if trial.trial in holdout.members else "white")  # fmt: skip
    by_name = {trial.trial: cost(trial) for trial in trials}
    costs = [by_name.get(name) for name in holdout.members]
    if holdout.ensemble is not None and costs and all(costs):
        style = stage_style("ensemble")
        hits = round(holdout.ensemble * holdout.images)
        interval = proportion_interval(hits, holdout.images)
        total = sum(value for value in costs if value)
        axes.plot([total, total], [interval.low, interval.high], color=style.color, lw=0.9)
        axes.plot(total, holdout.ensemble, style.marker, color=style.color, ms=6.5)


def _log_axis(
    axes: Axes,
    ticks: Callable[[float, float], list[float]],
    text: Callable[[float], str],
) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.25, high * 1.25)
    axes.xaxis.set_major_locator(FixedLocator(ticks(low, high)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: trim_zeros(text(value))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(True)


def _costs_legend(holdout: HoldoutAccuracy) -> list[Line2D]:
    handles = [
        *(mark(kind.color, kind.marker, kind.label, mfc="white") for kind in KINDS.values()),
        mark(GREY, "o", "filled: ensemble member"),
    ]
    if holdout.ensemble is not None:
        style = stage_style("ensemble")
        handles.append(mark(style.color, style.marker, "ensemble (cost of all members)"))
    return handles


def _member_matrix(
    axes: Axes, shares: Floats, names: Sequence[str], title: str, *, diagonal: bool
) -> None:
    """Draw a heat map [M, M] of shares, with numbers where there is room."""
    top = max(float(shares.max()), 1e-9)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=top * 1.3)
    for (i, j), share in np.ndenumerate(shares):
        if (diagonal or i != j) and len(names) <= MOST_NUMBERED:
            color = "white" if share > 0.9 * top else "black"
            axes.text(j, i, percent(float(share), 1, sign=False), ha="center", va="center",
                      fontsize=6.2 if len(names) <= 6 else 5.0, color=color)  # fmt: skip
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90 if len(names) > 4 else 0, fontsize=6.2)
    axes.set_yticks(ticks, names, fontsize=6.2)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)


def _weight_bars(
    axes: Axes,
    names: Sequence[str],
    weights: Mapping[str, float],
    predictions: Ints,
    labels: Ints | None,
) -> None:
    values = [weights.get(name, 0.0) for name in names]
    axes.barh(range(len(names)), values, color=BLUE, height=0.6)
    for row, value in enumerate(values):
        text = percent(value, 0)
        if labels is not None:
            text += f"   ({percent(float((predictions[row] == labels).mean()), 1)})"
        axes.text(value, row, f" {text}", va="center", fontsize=6.5)
    name_rows(axes, names, fontsize=6.2)
    axes.set_xlim(0, max([*values, 1e-9]) * 1.75)
    percent_ticks(axes.xaxis, bins=3)
    axes.set_title("Weight (own accuracy)" if labels is not None else "Weight")
