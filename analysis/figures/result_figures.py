"""Figures of the ledger and the ensemble: accuracy, differences, cost, disagreement.

Axes: M members, N examples, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from analysis.figures.style import (
    BLACK,
    BLUE,
    GREY,
    grid,
    new_figure,
    percent_ticks,
    round_ticks,
    round_times,
    stage_style,
)
from analysis.text.wording import (
    LOWER_IS_BETTER,
    NOT_DISTINGUISHABLE,
    Ledger,
    Row,
    label,
    metric_label,
    rows,
    verdict,
)
from common.formats import file_size, percent, short_duration, signed, trim_zeros
from ensemble.selection import diversity

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

COSTS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "bytes": ("size of the weights", lambda value: trim_zeros(file_size(value))),
    "latency_ms_batch1": ("latency of one image, ms", lambda value: f"{value:g}"),
    "train_seconds": ("time to train", lambda value: trim_zeros(short_duration(value))),
}
"""What an answer costs: the row's key, the axis label, the format of its ticks."""
MARK = 0.05
"""Width of a mark, as a share of the axis."""
MOST_NUMBERED = 10
"""Most members whose shares are written into the heat maps."""


def ledger_figure(ledger: Ledger) -> Figure:
    """Left: accuracy of every row. Right: paired differences, one panel a metric."""
    metrics = _metrics(ledger)
    found = rows(ledger)
    differences = {m: [d for d in ledger["differences"] if d["metric"] == m] for m in metrics}
    lines = max([len(found), *(len(group) for group in differences.values())])
    figure = new_figure(0.75 + 0.24 * lines)
    axes = figure.subplots(1, 1 + len(metrics), squeeze=False)[0]
    _accuracies(axes[0], found)
    for i, (place, metric) in enumerate(zip(axes[1:], metrics, strict=True)):
        _forest(place, differences[metric], metric, named=i == 0)
    return figure


def cost_figure(ledger: Ledger) -> Figure:
    """Accuracy on test against size, latency and training time, each on a log scale."""
    found = rows(ledger)
    keys = [key for key in COSTS if any(_positive(row.get(key)) for row in found)]
    figure = new_figure(2.75)
    axes = figure.subplots(1, max(1, len(keys)), sharey=True, squeeze=False)[0]
    for place, key in zip(axes, keys, strict=False):
        _cost_panel(place, found, key)
    axes[0].set_ylabel("accuracy on test, 95% interval")
    percent_ticks(axes[0].yaxis)
    handles = [
        Line2D([], [], ls="", marker=style.marker, color=style.color, label=style.label)
        for style in (stage_style(row["stage"]) for row in found)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def disagreement(
    log_probs: Mapping[str, Floats], weights: Mapping[str, float], labels: Ints | None
) -> Figure:
    """How often two members answer differently, are both wrong, and what each is worth."""
    names = list(log_probs)
    answers = np.stack([log_probs[name].argmax(axis=1) for name in names])
    labels = labels if labels is not None and len(labels) == answers.shape[1] else None
    figure = new_figure(max(2.0, 0.75 + 0.26 * len(names)))
    panels = 2 if labels is None else 3
    axes = figure.subplots(1, panels, width_ratios=[1.0, 1.0, 1.0][-panels:])
    differing = diversity.disagreement(answers)
    _member_matrix(axes[0], differing, names, "Answer differently, %", diagonal=False)
    if labels is not None:
        both = diversity.double_fault(answers, labels)
        _member_matrix(axes[1], both, names, "Both wrong, %", diagonal=True)
        axes[1].set_yticks([])
    _weight_bars(axes[-1], names, weights, answers, labels)
    return figure


def _member_matrix(
    axes: Axes, shares: Floats, names: Sequence[str], title: str, *, diagonal: bool
) -> None:
    """A heat map [M, M] of shares with their numbers, where there is room for those."""
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


def _metrics(ledger: Ledger) -> list[str]:
    """At most two: accuracy first, then a proper score."""
    present = {item["metric"] for item in ledger.get("differences", [])}
    return [metric for metric in ("accuracy", "nll", "brier") if metric in present][:2]


def _accuracies(axes: Axes, found: Sequence[Row]) -> None:
    for y, row in enumerate(found):
        style = stage_style(row["stage"])
        low, high = row.get("accuracy_interval") or (row["accuracy"], row["accuracy"])
        axes.plot([low, high], [y, y], color=style.color, lw=1.2)
        axes.plot(row["accuracy"], y, style.marker, color=style.color, ms=6)
    axes.set_yticks(range(len(found)), [label(row["stage"]) for row in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    percent_ticks(axes.xaxis, bins=4)
    axes.set_title("Accuracy on test")
    axes.set_xlabel("95% interval")
    grid(axes, "x")


def _forest(axes: Axes, differences: Sequence[Row], metric: str, *, named: bool) -> None:
    """Differences a − b; hollow and grey where zero lies in the interval."""
    scale = 1.0 if metric in LOWER_IS_BETTER else 100.0
    for y, item in enumerate(differences):
        low, high = (scale * limit for limit in item["interval"])
        open_ = verdict(item) == NOT_DISTINGUISHABLE
        color = GREY if open_ else BLUE
        axes.plot([low, high], [y, y], color=color, lw=1.2)
        axes.plot(scale * item["value"], y, "o", ms=5, color=color, mfc="white" if open_ else color)
    axes.axvline(0, color=BLACK, lw=0.8)
    names = [f"{label(item['a'])}\n− {label(item['b'])}" for item in differences]
    axes.set_yticks(range(len(names)), names if named else [""] * len(names), fontsize=6.2)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_title(f"Difference in {metric_label(metric)}")
    axes.set_xlabel(
        "nats (left of 0: better)"
        if metric == "nll"
        else "(left of 0: better)"
        if metric in LOWER_IS_BETTER
        else "points (right of 0: better)"
    )
    # A label at the very edge would stand out of the figure.
    axes.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    grid(axes, "x")


def _cost_panel(axes: Axes, found: Sequence[Row], key: str) -> None:
    text, formatted = COSTS[key]
    shown = [row for row in found if _positive(row.get(key))]
    values = [float(row[key]) for row in shown]
    limits = min(values) / 1.7, max(values) * 1.7
    for row, place in zip(shown, side_by_side(values, limits), strict=True):
        style = stage_style(row["stage"])
        low, high = row.get("accuracy_interval") or (row["accuracy"], row["accuracy"])
        axes.plot([place] * 2, [low, high], color=style.color, lw=0.8)
        axes.plot(
            place, row["accuracy"], style.marker, color=style.color, ms=5.5, mec="white", mew=0.5
        )
    axes.set_xscale("log")
    axes.set_xlim(limits)
    ticks = round_times if key == "train_seconds" else round_ticks
    axes.xaxis.set_major_locator(FixedLocator(ticks(min(values), max(values))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: formatted(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(text)
    axes.grid(True)


def side_by_side(values: Sequence[float], limits: tuple[float, float]) -> list[float]:
    """Places on a log axis from low to high for marks that would else cover one another.

    Values closer than MARK of the axis become a group, which is spread about its middle at
    that distance; all others stay where they are.
    """
    step = MARK * np.log(limits[1] / limits[0])
    order = np.argsort(values, kind="stable")
    logs = np.log(np.asarray(values, float))[order]
    starts = np.flatnonzero(np.diff(logs, prepend=-np.inf) >= step)
    places = np.empty(len(logs))
    for group in np.split(np.arange(len(logs)), starts[1:]):
        middle = logs[group].mean()
        places[group] = middle + step * (np.arange(len(group)) - (len(group) - 1) / 2)
    found = np.empty(len(logs))
    found[order] = np.exp(places)
    return [float(place) for place in found]


def _positive(value: Any) -> bool:
    return value is not None and value > 0


def _tick(value: float) -> str:
    return "0" if abs(value) < 1e-12 else signed(value, 3).rstrip("0").rstrip(".")


def _weight_bars(
    axes: Axes,
    names: Sequence[str],
    weights: Mapping[str, float],
    answers: Ints,
    labels: Ints | None,
) -> None:
    values = [weights.get(name, 0.0) for name in names]
    rows = np.arange(len(names))
    axes.barh(rows, values, color=BLUE, height=0.6)
    for row, value in enumerate(values):
        text = percent(value, 0)
        if labels is not None:
            text += f"   ({percent(float((answers[row] == labels).mean()), 1)})"
        axes.text(value, row, f" {text}", va="center", fontsize=6.5)
    axes.set_yticks(rows, names, fontsize=6.2)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, max([*values, 1e-9]) * 1.75)
    percent_ticks(axes.xaxis, bins=3)
    axes.set_title("Weight (accuracy alone)")
