"""Figures of the search: scores and epochs of all trials, importance of searched values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from analysis.facts.importance import Importances
from analysis.facts.trials import ENDINGS, TrialFacts, best_trial
from analysis.figures.style import (
    BLACK,
    BLUE,
    ENDING_COLORS,
    GREY,
    NLL_LABEL,
    difference_axis,
    grid,
    legend_below,
    log_nll_axis,
    mark,
    name_rows,
    new_figure,
    plot_difference,
)
from common.formats import shorten, value_text
from search.space.parameters import Parameter
from search.space.space import Space

COLUMNS = 5
"""Panels in a row of the figure of searched values."""
RUNG_MARKERS = ("o", "s", "D", "^", "v", "P")
MONOSPACE = "DejaVu Sans Mono"
"""Font of recipe keys."""


def sweep_figure(trials: Sequence[TrialFacts], rungs: Sequence[int]) -> Figure:
    """Draw each trial's scores at its rungs (above) and the epochs it trained (below)."""
    search = [trial for trial in trials if trial.kind == "search"]
    figure = new_figure(3.1)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, 1.0])
    for trial in search:
        color, scores = ENDING_COLORS[trial.ending], trial.scores
        above.plot([trial.number] * len(scores), list(scores.values()), color=color, lw=0.8)
        for rung, score in scores.items():
            marker = _rung_marker(rung, rungs)
            above.plot(trial.number, score, marker, color=color, mec=GREY, mew=0.4)
    best = best_trial(search)
    if best:
        above.plot(best.number, best.scores[best.rung or 0], "o", ms=11, mfc="none", mec=BLACK,
                   mew=1.1, clip_on=False)  # fmt: skip
    log_nll_axis(above)
    above.set_ylabel(NLL_LABEL)
    above.set_title("Score at each rung")
    above.margins(x=0.02, y=0.1)
    _epoch_bars(below, search)
    legend_below(figure, _sweep_legend(search, rungs))
    return figure


def hyperparameters_figure(
    trials: Sequence[TrialFacts], space: Space, rungs: Sequence[int]
) -> Figure:
    """Draw a panel per searched value: each trial's score at the first rung and at the last.

    At the first rung every trial has the same budget, so it shows a value's effect free of
    the scheduler's selection; the last rung shows the survivors.
    """
    search = [trial for trial in trials if trial.kind == "search" and trial.scores]
    rows = max(1, math.ceil(len(space.parameters) / COLUMNS))
    height = 1.4 if space.families else 1.25
    figure = new_figure(0.35 + height * rows)
    axes = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False)
    for unused in axes.flat[len(space.parameters) :]:
        unused.set_axis_off()
    for panel, parameter in zip(axes.flat, space.parameters, strict=False):
        active = [trial for trial in search if parameter.label in space.active(trial.recipe)]
        _value_panel(panel, parameter, active, rungs, best_trial(search))
    for row in axes:
        row[0].set_ylabel(NLL_LABEL)
    legend_below(figure, _values_legend(rungs), columns=3)
    return figure


def importance_figure(importances: Importances) -> Figure:
    """Draw the importance of every searched value with its 95% interval."""
    figure = new_figure(0.75 + 0.155 * max(len(importances.values), 3))
    axes = figure.subplots()
    for row, item in enumerate(importances.values):
        plot_difference(
            axes, item.value, (item.low, item.high), row, distinguishable=item.distinguishable
        )
    name_rows(axes, [item.name for item in importances.values], family=MONOSPACE)
    difference_axis(axes, bins=7)
    axes.set_title("Importance of each searched value")
    axes.set_xlabel("share of the variance of ranks lost when the value is shuffled, 95% interval")
    return figure


def _epoch_bars(axes: Axes, trials: Sequence[TrialFacts]) -> None:
    """Draw the epochs each trial trained, coloured by how it ended."""
    axes.bar(
        [trial.number for trial in trials],
        [len(trial.epochs) for trial in trials],
        color=[ENDING_COLORS[trial.ending] for trial in trials],
        edgecolor=GREY,
        linewidth=0.3 if len(trials) <= 80 else 0.0,
        width=0.8,
    )
    axes.set_title("Epochs trained, cooldowns included")
    axes.set_ylabel("epochs")
    axes.set_xlabel("trial, in order of start")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=14, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    grid(axes)


def _sweep_legend(trials: Sequence[TrialFacts], rungs: Sequence[int]) -> list[Line2D]:
    seen = {trial.ending for trial in trials}
    return [
        *(
            mark(ENDING_COLORS[ending], "s", text, mec=GREY, mew=0.3, ms=6)
            for ending, text in ENDINGS.items()
            if ending in seen
        ),
        *(mark("white", _rung_marker(rung, rungs), f"rung {rung}", mec=GREY) for rung in rungs),
        mark(BLACK, "o", "best", ms=9, mfc="none"),
    ]


def _rung_marker(rung: int, rungs: Sequence[int]) -> str:
    index = list(rungs).index(rung) if rung in rungs else 0
    return RUNG_MARKERS[index % len(RUNG_MARKERS)]


_FIRST: Mapping[str, Any] = {"marker": "o", "mfc": "white", "mec": GREY, "mew": 0.7, "ms": 3.6}
_LAST: Mapping[str, Any] = {"marker": "o", "mfc": BLUE, "mec": "white", "mew": 0.3, "ms": 4.6}


def _rung_styles(rungs: Sequence[int]) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the first and the last rung, each with its style; a single rung is both."""
    return [(rungs[0], _FIRST), (rungs[-1], _LAST)] if len(rungs) > 1 else [(rungs[0], _LAST)]


def _values_legend(rungs: Sequence[int]) -> list[Line2D]:
    trials = ("every trial", "survivors")
    return [
        *(
            Line2D([], [], ls="", label=f"score at rung {rung} ({which})", **style)
            for (rung, style), which in zip(_rung_styles(rungs), trials, strict=False)
        ),
        mark(BLACK, "o", "best", ms=8, mfc="none"),
    ]


def _value_panel(
    axes: Axes,
    parameter: Parameter,
    trials: Sequence[TrialFacts],
    rungs: Sequence[int],
    best: TrialFacts | None,
) -> None:
    """Draw the trials in which a value has an effect; the ring marks the search's best trial."""
    positions = _positions(axes, parameter, trials)
    for rung, style in _rung_styles(rungs):
        scored = [t for t in trials if rung in t.scores and t.trial in positions]
        axes.plot(
            [positions[trial.trial] for trial in scored],
            [trial.scores[rung] for trial in scored], ls="", **style,
        )  # fmt: skip
    if best and best.trial in positions:
        axes.plot(positions[best.trial], best.scores[best.rung or 0], "o", ms=9, mfc="none",
                  mec=BLACK, mew=1.0, clip_on=False)  # fmt: skip
    log_nll_axis(axes)
    # The family on a line of its own: the labels of neighbours would run into each other.
    axes.set_title(parameter.label.replace(".", ".\n"), family=MONOSPACE, fontsize=7.0)


def _positions(axes: Axes, parameter: Parameter, trials: Sequence[TrialFacts]) -> dict[str, float]:
    """Set up a value's axis and return each trial's position on it."""
    values = {trial.trial: trial.recipe[parameter.name] for trial in trials}
    choices = _few_choices(parameter)
    if choices:
        axes.set_xticks(range(len(choices)), [shorten(choice, 9) for choice in choices])
        axes.set_xlim(-0.5, len(choices) - 0.5)
        # Spread marks by trial number, so the same run gives the same picture.
        return {
            trial.trial: choices.index(value_text(values[trial.trial]))
            + 0.5 * ((trial.number * 0.618) % 1 - 0.5)
            for trial in trials
            if value_text(values[trial.trial]) in choices
        }
    if parameter.log:
        axes.set_xscale("log")
        subs = (1.0,) if parameter.high / parameter.low >= 40 else (1.0, 3.0)
        axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        whole = parameter.type == "int"
        axes.xaxis.set_major_locator(MaxNLocator(nbins=3, integer=whole, min_n_ticks=2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.set_xlim(*_padded_range(parameter))
    return {trial: float(value) for trial, value in values.items()}


def _few_choices(parameter: Parameter) -> list[str]:
    """Return all values as text if they are few enough for one tick each, else none."""
    if parameter.type == "categorical":
        return [value_text(choice) for choice in parameter.choices]
    if parameter.type == "int" and not parameter.log:
        whole = range(int(parameter.low), int(parameter.high) + 1, int(parameter.step or 1))
        return [value_text(value) for value in whole] if len(whole) <= 6 else []
    return []


def _padded_range(parameter: Parameter) -> tuple[float, float]:
    """Return the searched range with a twelfth of it on either side, so no mark is cut."""
    if parameter.log:
        pad = (parameter.high / parameter.low) ** (1 / 12)
        return parameter.low / pad, parameter.high * pad
    pad = (parameter.high - parameter.low) / 12 or 1.0
    return parameter.low - pad, parameter.high + pad


def _short(value: float) -> str:
    """Format a tick for a panel one inch wide: `0.01`, but `1e-4`."""
    return f"{value:g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")
