"""Figures of single trials: how the best configuration learned, and what trials cost."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.facts.trials import EpochFacts, TrialFacts
from analysis.figures.style import (
    BLUE,
    GREEN,
    GREY,
    PALE,
    empty,
    epoch_ticks,
    grid,
    log_nll_axis,
    new_figure,
    percent_ticks,
    round_ticks,
    round_times,
    stage_style,
)
from analysis.figures.sweep_figures import branches
from common.formats import compact, short_duration, trim_zeros
from common.statistics.intervals import proportion_interval


def training_curves(
    best: TrialFacts, seeds: Sequence[TrialFacts], rungs: Sequence[int], *, val: int | None
) -> Figure:
    """The best configuration: training loss and NLL on val at the left, accuracy at the right.

    `val` is the number of images of val, for the interval of the last accuracy. Only the way
    to the last rung is drawn: the trunk, then the last branch.
    """
    figure = new_figure(2.5)
    left, right = figure.subplots(1, 2)
    for trial in [*seeds, best]:
        path = last_path(trial.epochs)
        color, width = (BLUE, 1.6) if trial is best else (PALE, 0.8)
        left.plot(*_line(path, "train_loss"), color=color, lw=width, ls=":")
        left.plot(*_line(path, "val_nll"), color=color, lw=width)
        right.plot(*_line(path, "val_accuracy"), color=color, lw=width)
    _last_interval(right, last_path(best.epochs), val)
    log_nll_axis(left)
    if not any(epoch.val_nll for epoch in best.epochs):
        empty(left, "no epoch has been scored")
    left.set_title("Loss, nats (log scale)")
    right.set_title("Accuracy on val")
    percent_ticks(right.yaxis)
    grid(right)
    for axes in (left, right):
        epoch_ticks(axes, rungs)
    figure.legend(handles=_curve_legend(bool(seeds)), loc="outside lower center", ncols=4)
    return figure


def last_path(epochs: Sequence[EpochFacts]) -> list[EpochFacts]:
    """The epochs that led to a trial's last score: the trunk to where its last branch began."""
    lines = branches(epochs)
    if not lines:
        return []
    last = lines[-1]
    if last[-1].phase != "cooldown":
        return last
    trunk = [epoch for epoch in epochs if epoch.phase != "cooldown"]
    return [epoch for epoch in trunk if epoch.step < last[0].step] + last


def trial_costs(
    trials: Sequence[TrialFacts],
    hits: Mapping[str, int],
    images: int,
    *,
    members: Mapping[str, float],
    ensemble: float | None,
) -> Figure:
    """Accuracy on holdout of every finished trial against its training time and its size.

    `hits` are right answers of `images`; `ensemble` is the cross-fitted accuracy, marked at
    the cost of all `members` together.
    """
    shown = [trial for trial in trials if trial.trial in hits]
    figure = new_figure(2.6)
    axes = figure.subplots(1, 2, sharey=True)
    _costs(axes[0], shown, hits, images, members, ensemble, key="seconds")
    _costs(axes[1], shown, hits, images, members, ensemble, key="params")
    axes[0].set(xlabel="time of training", ylabel="accuracy on holdout, 95% interval")
    axes[1].set_xlabel("parameters")
    percent_ticks(axes[0].yaxis)
    figure.legend(handles=_cost_legend(ensemble is not None), loc="outside lower center", ncols=4)
    return figure


_KINDS = {
    "search": ("o", GREY, "trial of the search"),
    "seed": ("v", GREEN, "seed of the best"),
}


def _costs(
    axes: Axes,
    trials: Sequence[TrialFacts],
    hits: Mapping[str, int],
    images: int,
    members: Mapping[str, float],
    ensemble: float | None,
    *,
    key: str,
) -> None:
    for trial in sorted(trials, key=lambda trial: trial.trial in members):
        cost = getattr(trial, key)
        if not cost:
            continue
        marker, color, _ = _KINDS["seed" if trial.kind == "seed" else "search"]
        interval = proportion_interval(hits[trial.trial], images)
        inside = trial.trial in members
        axes.plot([cost] * 2, [interval.low, interval.high], color=color, lw=0.6, alpha=0.6)
        axes.plot(cost, hits[trial.trial] / images, marker, ms=5, color=color, mew=0.8,
                  mfc=color if inside else "white")  # fmt: skip
    costs = {trial.trial: getattr(trial, key) for trial in trials}
    found = [costs.get(name) for name in members]
    if ensemble is not None and found and all(found):
        style = stage_style("ensemble")
        interval = proportion_interval(round(ensemble * images), images)
        whole = sum(value for value in found if value)
        axes.plot([whole] * 2, [interval.low, interval.high], color=style.color, lw=0.9)
        axes.plot(whole, ensemble, style.marker, color=style.color, ms=6.5)
    _log_axis(axes, key)


def _log_axis(axes: Axes, key: str) -> None:
    written = short_duration if key == "seconds" else compact
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.25, high * 1.25)
    ticks = round_times if key == "seconds" else round_ticks
    axes.xaxis.set_major_locator(FixedLocator(ticks(low, high)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: trim_zeros(written(value))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(True)


def _line(path: Sequence[EpochFacts], name: str) -> tuple[list[int], list[float]]:
    values = [getattr(epoch, name) for epoch in path]
    return [epoch.epoch for epoch in path], [math.nan if v is None else v for v in values]


def _last_interval(axes: Axes, path: Sequence[EpochFacts], images: int | None) -> None:
    """Wilson's interval of the last accuracy."""
    if not path or not images or path[-1].val_accuracy is None:
        return
    value = path[-1].val_accuracy
    interval = proportion_interval(round(value * images), images)
    below, above = max(0.0, value - interval.low), max(0.0, interval.high - value)
    axes.errorbar([path[-1].epoch], [value], yerr=[[below], [above]], fmt="o", color=BLUE,
                  ms=4, capsize=2, elinewidth=0.9, clip_on=False)  # fmt: skip


def _curve_legend(seeds: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=BLUE, lw=1.6, label="best trial, on val"),
        Line2D([], [], color=BLUE, lw=1.6, ls=":", label="its training loss"),
    ]
    if seeds:
        handles.append(Line2D([], [], color=PALE, label="other seeds of it"))
    return handles


def _cost_legend(ensemble: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], ls="", marker=marker, color=color, mfc="white", label=text)
        for marker, color, text in _KINDS.values()
    ]
    handles.append(Line2D([], [], ls="", marker="o", color=GREY, label="filled: chosen"))
    if ensemble:
        style = stage_style("ensemble")
        handles.append(
            Line2D([], [], ls="", marker=style.marker, color=style.color,
                   label="ensemble, at the cost of all members")
        )  # fmt: skip
    return handles
