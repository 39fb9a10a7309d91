"""Learning curves of the best configuration and of every trial."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.facts.trials import EpochFacts, TrialFacts, best_trial
from analysis.figures.style import (
    BLUE,
    ENDING_COLORS,
    FAINT,
    GREY,
    NLL_LABEL,
    PALE,
    SKY,
    VERMILLION,
    empty,
    epoch_ticks,
    grid,
    legend_below,
    log_nll_axis,
    new_figure,
    percent_ticks,
)
from common.formats import plural
from common.statistics.intervals import proportion_interval

LINES_ORDER = ("unfinished", "pruned", "failed", "finished")
"""Endings in drawing order: later curves cover earlier ones."""


def training_curves_figure(
    best: TrialFacts, seeds: Sequence[TrialFacts], rungs: Sequence[int], *, val: int | None
) -> Figure:
    """Draw losses (left) and accuracy on val (right) of the best trial and its other seeds.

    `val` is the number of val images, for the interval of the last accuracy. Only the
    path to the last rung is drawn: the trunk, then the last cooldown.
    """
    figure = new_figure(2.5)
    left, right = figure.subplots(1, 2)
    for trial in [*seeds, best]:
        path = last_path(trial.epochs)
        color, width = (BLUE, 1.6) if trial is best else (PALE, 0.8)
        left.plot(*_points(path, "train_loss"), color=color, lw=width, ls=":")
        left.plot(*_points(path, "val_nll"), color=color, lw=width)
        right.plot(*_points(path, "val_accuracy"), color=color, lw=width)
    _last_interval(right, last_path(best.epochs), val)
    log_nll_axis(left)
    if not any(epoch.val_nll for epoch in best.epochs):
        empty(left, "no epoch has been scored")
    left.set_title("Loss, nats")
    right.set_title("Accuracy on val")
    percent_ticks(right.yaxis)
    grid(right)
    for axes in (left, right):
        epoch_ticks(axes, rungs)
    handles = [
        Line2D([], [], color=BLUE, lw=1.6, label="best trial, on val"),
        Line2D([], [], color=BLUE, lw=1.6, ls=":", label="its training loss"),
    ]
    if seeds:
        text = f"{plural(len(seeds), 'other seed')}, showing run-to-run variation"
        handles.append(Line2D([], [], color=PALE, label=text))
    legend_below(figure, handles)
    return figure


def learning_curves_figure(trials: Sequence[TrialFacts], rungs: Sequence[int]) -> Figure:
    """Draw NLL on val after every epoch of every trial, cooldowns included."""
    search = [trial for trial in trials if trial.kind == "search"]
    seeds = [trial for trial in trials if trial.kind == "seed"]
    panels = [("Search", search)]
    if seeds:
        panels.append(("Seeds of the best", seeds))
    figure = new_figure(3.1)
    axes = figure.subplots(
        1, len(panels), sharey=True, squeeze=False, width_ratios=[1.7, 1.0][: len(panels)]
    )[0]
    for i, (panel, (title, group)) in enumerate(zip(axes, panels, strict=True)):
        _all_curves(panel, group, rungs, best=best_trial(group) if i == 0 else None)
        panel.set_title(f"{title}: {plural(len(group), 'trial')}")
    axes[0].set_ylabel(NLL_LABEL)
    legend_below(figure, _curves_legend(search), columns=5)
    return figure


def branches(epochs: Sequence[EpochFacts]) -> list[list[EpochFacts]]:
    """Split epochs into the trunk and its cooldowns; each begins with the trunk epoch before it."""
    trunk = [epoch for epoch in epochs if epoch.phase != "cooldown"]
    lines: list[list[EpochFacts]] = [trunk] if trunk else []
    current: list[EpochFacts] = []
    for epoch in epochs:
        if epoch.phase != "cooldown":
            current = []
            continue
        if not current:
            current = [root for root in trunk if root.step < epoch.step][-1:]
            lines.append(current)
        current.append(epoch)
    return lines


def last_path(epochs: Sequence[EpochFacts]) -> list[EpochFacts]:
    """Return the epochs that led to the last score: the trunk, then the last cooldown."""
    lines = branches(epochs)
    if not lines:
        return []
    last = lines[-1]
    if last[-1].phase != "cooldown":
        return last
    trunk = [epoch for epoch in epochs if epoch.phase != "cooldown"]
    return [epoch for epoch in trunk if epoch.step < last[0].step] + last


def _all_curves(
    axes: Axes, trials: Sequence[TrialFacts], rungs: Sequence[int], *, best: TrialFacts | None
) -> None:
    for trial in sorted(trials, key=lambda t: (t is best, LINES_ORDER.index(t.ending))):
        color = ENDING_COLORS[trial.ending]
        if trial.ending == "finished" and trial is not best:
            color = SKY
        for line in branches(trial.epochs):
            style = "--" if line[-1].phase == "cooldown" else "-"
            axes.plot(*_points(line), style, color=color, lw=1.8 if trial is best else 0.7)
        scored = [epoch for epoch in trial.epochs if epoch.rung]
        axes.plot(*_points(scored), "o", color=color, ms=4.5 if trial is best else 2.6,
                  mec="white", mew=0.3)  # fmt: skip
        if trial.status == "failed" and trial.epochs:
            last = trial.epochs[-1]
            axes.plot(last.epoch, last.val_nll or math.nan, "x", color=VERMILLION, ms=6, mew=1.4)
    for rung in rungs:
        axes.axvline(rung, color=FAINT, lw=0.8, zorder=0)
    epoch_ticks(axes, rungs)
    log_nll_axis(axes)
    if not any(trial.scores for trial in trials):
        empty(axes, "no trial has been scored")


def _points(epochs: Sequence[EpochFacts], field: str = "val_nll") -> tuple[list[int], list[float]]:
    """Return epochs and values of a field; an epoch that was not scored leaves a gap."""
    values = [getattr(epoch, field) for epoch in epochs]
    return [epoch.epoch for epoch in epochs], [math.nan if v is None else v for v in values]


def _last_interval(axes: Axes, path: Sequence[EpochFacts], images: int | None) -> None:
    """Draw Wilson's interval of the last accuracy."""
    if not path or not images or path[-1].val_accuracy is None:
        return
    value = path[-1].val_accuracy
    interval = proportion_interval(round(value * images), images)
    below, above = max(0.0, value - interval.low), max(0.0, interval.high - value)
    axes.errorbar([path[-1].epoch], [value], yerr=[[below], [above]], fmt="o", color=BLUE,
                  ms=4, capsize=2, elinewidth=0.9, clip_on=False)  # fmt: skip


def _curves_legend(trials: Sequence[TrialFacts]) -> list[Line2D]:
    handles = [
        Line2D([], [], color=BLUE, lw=1.8, marker="o", label="best"),
        Line2D([], [], color=SKY, label="finished"),
        Line2D([], [], color=PALE, label="stopped at a rung"),
        Line2D([], [], color=GREY, ls="--", label="cooldown to a rung"),
    ]
    if any(trial.status == "failed" for trial in trials):
        handles.append(Line2D([], [], color=VERMILLION, marker="x", label="failed"))
    return handles
