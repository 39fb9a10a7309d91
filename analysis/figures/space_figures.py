"""The figure of the searched values: which of them mattered."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from analysis.facts.importance import Importances
from analysis.facts.trials import TrialFacts, best_trial
from analysis.figures.style import BLACK, BLUE, GREY, grid, log_nll_axis, new_figure
from common.formats import shorten, value_text
from search.space.space import Parameter, Space

COLUMNS = 5


def hyperparameters(trials: Sequence[TrialFacts], space: Space, rungs: Sequence[int]) -> Figure:
    """One panel a searched value: every trial's score at its first rung and at the last.

    The first rung scores every trial at the same budget, so it shows the effect without the
    scheduler's choice; the last rung shows what became of the survivors.
    """
    search = [trial for trial in trials if trial.kind == "search" and trial.scores]
    lines = max(1, math.ceil(len(space.parameters) / COLUMNS))
    figure = new_figure(0.35 + 1.25 * lines)
    axes = figure.subplots(lines, COLUMNS, sharey=True, squeeze=False)
    for place in axes.flat[len(space.parameters) :]:
        place.set_axis_off()
    for place, parameter in zip(axes.flat, space.parameters, strict=False):
        active = [trial for trial in search if parameter.name in space.active(trial.recipe)]
        _panel(place, parameter, active, rungs, best_trial(search))
    for row in axes:
        row[0].set_ylabel("NLL on val, nats")
    figure.legend(handles=_panel_legend(rungs), loc="outside lower center", ncols=3)
    return figure


def _panel(
    axes: Axes,
    parameter: Parameter,
    trials: Sequence[TrialFacts],
    rungs: Sequence[int],
    best: TrialFacts | None,
) -> None:
    """The trials in which this value had an effect; the ring is the best of the whole search."""
    position = _positions(axes, parameter, trials)
    for rung, style in _series(rungs):
        scored = [t for t in trials if rung in t.scores and t.trial in position]
        axes.plot(
            [position[trial.trial] for trial in scored],
            [trial.scores[rung] for trial in scored], ls="", **style,
        )  # fmt: skip
    if best and best.trial in position:
        axes.plot(position[best.trial], best.scores[best.rung or 0], "o", ms=9, mfc="none",
                  mec=BLACK, mew=1.0, clip_on=False)  # fmt: skip
    log_nll_axis(axes)
    axes.set_title(parameter.name, family="DejaVu Sans Mono", fontsize=7.0)


_FIRST: Mapping[str, Any] = {"marker": "o", "mfc": "white", "mec": GREY, "mew": 0.7, "ms": 3.6}
_FINAL: Mapping[str, Any] = {"marker": "o", "mfc": BLUE, "mec": "white", "mew": 0.3, "ms": 4.6}


def _panel_legend(rungs: Sequence[int]) -> list[Line2D]:
    who = ("every trial", "survivors")
    return [
        *(
            Line2D([], [], ls="", label=f"score at rung {rung} ({which})", **style)
            for (rung, style), which in zip(_series(rungs), who, strict=False)
        ),
        Line2D([], [], ls="", marker="o", ms=8, mfc="none", mec=BLACK, label="best"),
    ]


def _series(rungs: Sequence[int]) -> list[tuple[int, Mapping[str, Any]]]:
    """The first rung and the last, each with its style; one rung is both."""
    return [(rungs[0], _FIRST), (rungs[-1], _FINAL)] if len(rungs) > 1 else [(rungs[0], _FINAL)]


def _positions(axes: Axes, parameter: Parameter, trials: Sequence[TrialFacts]) -> dict[str, float]:
    """Where each trial stands on this value's axis, by the trial's name."""
    values = {trial.trial: trial.recipe[parameter.name] for trial in trials}
    choices = _few_choices(parameter)
    if choices:
        axes.set_xticks(range(len(choices)), [shorten(choice, 9) for choice in choices])
        axes.set_xlim(-0.5, len(choices) - 0.5)
        # Spread by the trial's number, so that the same run gives the same picture.
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
    axes.set_xlim(*_room(parameter))
    return {trial: float(value) for trial, value in values.items()}


def _room(parameter: Parameter) -> tuple[float, float]:
    """The searched range and a twelfth of it on either side, so that no mark is cut."""
    if parameter.log:
        pad = (parameter.high / parameter.low) ** (1 / 12)
        return parameter.low / pad, parameter.high * pad
    pad = (parameter.high - parameter.low) / 12 or 1.0
    return parameter.low - pad, parameter.high + pad


def _short(value: float) -> str:
    """`0.01`, but `1e-4`: a panel is an inch wide."""
    return f"{value:g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.0e}".replace("e-0", "e-")


def _few_choices(parameter: Parameter) -> list[str]:
    """The texts of all values, where there are few enough to give each its own place."""
    if parameter.type == "categorical":
        return [value_text(choice) for choice in parameter.choices]
    if parameter.type == "int" and not parameter.log:
        whole = range(int(parameter.low), int(parameter.high) + 1, int(parameter.step or 1))
        return [value_text(value) for value in whole] if len(whole) <= 6 else []
    return []


def importance_figure(found: Importances) -> Figure:
    """Importance of every searched value with its 95% interval; hollow where 0 is inside."""
    figure = new_figure(0.6 + 0.155 * max(len(found.values), 3))
    axes = figure.subplots()
    for y, item in enumerate(found.values):
        color = BLUE if item.distinguishable else GREY
        axes.plot([item.low, item.high], [y, y], color=color, lw=1.2)
        axes.plot(item.value, y, "o", ms=4.5, color=color,
                  mfc=color if item.distinguishable else "white")  # fmt: skip
    axes.axvline(0, color=BLACK, lw=0.8)
    axes.set_yticks(
        range(len(found.values)), [item.name for item in found.values], family="DejaVu Sans Mono"
    )
    axes.set_ylim(len(found.values) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(7, prune="both"))
    axes.set_xlabel("share of the ranks' variance that is lost when the value is shuffled")
    grid(axes, "x")
    return figure
