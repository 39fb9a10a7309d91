"""Figures of the search: what was tried, what was stopped, what mattered."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.facts.trials import EpochFacts, TrialFacts, best_trial
from analysis.figures.style import (
    BLACK,
    BLUE,
    FAINT,
    GREY,
    ORANGE,
    PALE,
    RUNG_MARKERS,
    SKY,
    VERMILLION,
    empty,
    epoch_ticks,
    grid,
    log_nll_axis,
    new_figure,
)
from common.formats import plural

NLL_LABEL = "NLL on val, nats (log scale)"
ENDINGS: Mapping[str, tuple[str, str]] = {
    "finished": (BLUE, "finished the schedule"),
    "pruned": (PALE, "stopped at a rung"),
    "failed": (VERMILLION, "failed"),
    "unfinished": (ORANGE, "not ended"),
}
"""Colour and legend text of how a trial can end."""


def learning_curves(trials: Sequence[TrialFacts], rungs: Sequence[int]) -> Figure:
    """NLL on val after every epoch of every trial, cooldown branches included."""
    search = [trial for trial in trials if trial.kind == "search"]
    seeds = [trial for trial in trials if trial.kind == "seed"]
    figure = new_figure(3.1)
    panels = (
        [("Search", search)] if not seeds else [("Search", search), ("Seeds of the best", seeds)]
    )
    axes = figure.subplots(
        1, len(panels), sharey=True, squeeze=False, width_ratios=[2.0, 1.0][: len(panels)]
    )[0]
    for i, (place, (title, group)) in enumerate(zip(axes, panels, strict=True)):
        _curves(place, group, rungs, show_best=i == 0)
        place.set_title(f"{title}: {plural(len(group), 'trial')}")
    axes[0].set_ylabel(NLL_LABEL)
    figure.legend(handles=_curve_legend(search), loc="outside lower center", ncols=5)
    return figure


def sweep_overview(trials: Sequence[TrialFacts], rungs: Sequence[int]) -> Figure:
    """Above: each trial's scores at its rungs. Below: how many epochs it was given."""
    search = [trial for trial in trials if trial.kind == "search"]
    figure = new_figure(3.1)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.6, 1.0])
    best = best_trial(search)
    for trial in search:
        color = ENDINGS[ending(trial)][0]
        scores = trial.scores
        above.plot([trial.number] * len(scores), list(scores.values()), color=color, lw=0.8)
        for rung, score in scores.items():
            above.plot(
                trial.number, score, _rung_marker(rung, rungs), color=color, mec=GREY, mew=0.4
            )
    if best:
        above.plot(
            best.number,
            best.scores[best.rung or 0],
            "o",
            ms=11,
            mfc="none",
            mec=BLACK,
            mew=1.1,
            clip_on=False,
        )
    log_nll_axis(above)
    above.set_ylabel(NLL_LABEL)
    above.set_title("Score at each rung")
    above.margins(x=0.02, y=0.1)
    _effort(below, search)
    figure.legend(handles=_overview_legend(search, rungs), loc="outside lower center", ncols=4)
    return figure


def ending(trial: TrialFacts) -> str:
    """`finished`, `pruned`, `failed` or `unfinished`."""
    if trial.whole_schedule:
        return "finished"
    return trial.status if trial.status in ENDINGS else "pruned"


def branches(epochs: Sequence[EpochFacts]) -> list[list[EpochFacts]]:
    """The trunk, then each cooldown with the trunk's epoch that it starts from."""
    trunk = [epoch for epoch in epochs if epoch.phase != "cooldown"]
    lines: list[list[EpochFacts]] = [trunk] if trunk else []
    current: list[EpochFacts] = []
    for epoch in epochs:
        if epoch.phase != "cooldown":
            current = []
            continue
        if not current:
            roots = [root for root in trunk if root.step < epoch.step]
            current = roots[-1:]
            lines.append(current)
        current.append(epoch)
    return lines


def _curves(
    axes: Axes, trials: Sequence[TrialFacts], rungs: Sequence[int], *, show_best: bool
) -> None:
    best = best_trial(trials) if show_best else None
    order = ("unfinished", "pruned", "failed", "finished")
    for trial in sorted(trials, key=lambda t: (t is best, order.index(ending(t)))):
        color, _ = ENDINGS[ending(trial)]
        if ending(trial) == "finished" and trial is not best:
            color = SKY
        width = 1.8 if trial is best else 0.7
        for line in branches(trial.epochs):
            style = "--" if line[-1].phase == "cooldown" else "-"
            axes.plot(*_points(line), style, color=color, lw=width)
        marks = [epoch for epoch in trial.epochs if epoch.rung]
        axes.plot(
            *_points(marks),
            "o",
            color=color,
            ms=4.5 if trial is best else 2.6,
            mec="white",
            mew=0.3,
        )
        if trial.status == "failed" and trial.epochs:
            last = trial.epochs[-1]
            axes.plot(last.epoch, last.val_nll or np.nan, "x", color=VERMILLION, ms=6, mew=1.4)
    for rung in rungs:
        axes.axvline(rung, color=FAINT, lw=0.8, zorder=0)
    epoch_ticks(axes, rungs)
    log_nll_axis(axes)
    if not any(trial.scores for trial in trials):
        empty(axes, "no trial has been scored")


def _points(epochs: Sequence[EpochFacts]) -> tuple[list[int], list[float]]:
    """Epochs and NLLs; an epoch that was not scored leaves a gap."""
    values = [math.nan if epoch.val_nll is None else epoch.val_nll for epoch in epochs]
    return [epoch.epoch for epoch in epochs], values


def _curve_legend(trials: Sequence[TrialFacts]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=BLUE, lw=1.8, marker="o", label="best"),
        Line2D([], [], color=SKY, label="finished"),
        Line2D([], [], color=PALE, label="stopped at a rung"),
        Line2D([], [], color=GREY, ls="--", label="cooldown to a rung"),
    ]
    if any(trial.status == "failed" for trial in trials):
        handles.append(Line2D([], [], color=VERMILLION, marker="x", label="failed"))
    return handles


def _effort(axes: Axes, trials: Sequence[TrialFacts]) -> None:
    """Bars of trained epochs, coloured by how the trial ended."""
    axes.bar(
        [trial.number for trial in trials],
        [len(trial.epochs) for trial in trials],
        color=[ENDINGS[ending(trial)][0] for trial in trials],
        edgecolor=GREY,
        linewidth=0.3 if len(trials) <= 80 else 0.0,
        width=0.8,
    )
    axes.set_title("Epochs trained, cooldowns included")
    axes.set_ylabel("epochs")
    axes.set_xlabel("trial, in order of its start")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=14, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    grid(axes)


def _overview_legend(trials: Sequence[TrialFacts], rungs: Sequence[int]) -> list[Line2D]:
    found = {ending(trial) for trial in trials}
    handles = [
        Line2D([], [], ls="", marker="s", color=color, mec=GREY, mew=0.3, ms=6, label=text)
        for name, (color, text) in ENDINGS.items()
        if name in found
    ]
    handles += [
        Line2D([], [], ls="", marker=_rung_marker(rung, rungs), color="white", mec=GREY,
               label=f"rung {rung}")
        for rung in rungs
    ]  # fmt: skip
    ring = Line2D([], [], ls="", marker="o", ms=9, mfc="none", mec=BLACK, label="best")
    return [*handles, ring]


def _rung_marker(rung: int, rungs: Sequence[int]) -> str:
    index = list(rungs).index(rung) if rung in rungs else 0
    return RUNG_MARKERS[index % len(RUNG_MARKERS)]
