"""The style of all figures: one palette and one type size.

The colours are Okabe and Ito's, which colour-blind readers can tell apart. In most figures markers
or line styles differ, too, so that a grey print is readable.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.text.labels import stage_label
from common.formats import signed

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, PALE, FAINT = "#6B6B6B", "#B8B8B8", "#E6E6E6"

WIDTH = 6.6
"""Inches: the text width of the report, so that figures are never scaled."""
DPI = 200

NLL_LABEL = "NLL on val, nats"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkStyle:
    """The colour, marker and legend text of one kind of mark."""

    label: str
    color: str
    marker: str


_STAGES: Mapping[str, tuple[str, str]] = {
    "best_single": (SKY, "o"),
    "best_single_int8": (SKY, "p"),
    "uniform_top_k": (ORANGE, "^"),
    "seeds_ensemble": (GREEN, "v"),
    "ensemble": (BLUE, "s"),
    "soft_vote": (BLUE, "<"),
    "weighted_vote": (BLUE, ">"),
    "hard_vote": (BLUE, "d"),
    "student_plain": (PURPLE, "P"),
    "student_plain_int8": (PURPLE, "*"),
    "student_fp32": (VERMILLION, "D"),
    "student_int8": (BLACK, "X"),
}


def stage_style(stage: str) -> MarkStyle:
    """Return the style of a stage of the ledger; an unknown stage is grey."""
    color, marker = _STAGES.get(stage, (GREY, "h"))
    return MarkStyle(label=stage_label(stage), color=color, marker=marker)


ENDING_COLORS: Mapping[str, str] = {
    "finished": BLUE,
    "pruned": PALE,
    "failed": VERMILLION,
    "unfinished": ORANGE,
}
"""Colours of trials by how they ended."""


@contextmanager
def drawing(families: Sequence[str] = ("DejaVu Sans",)) -> Iterator[None]:
    """Apply the style to matplotlib inside the block, then restore the caller's settings."""
    settings: Any = {
        "font.family": list(families),
        "font.size": 7.5,
        "axes.titlesize": 8.0,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 7.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "xtick.labelsize": 7.0,
        "ytick.labelsize": 7.0,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
        "legend.fontsize": 7.0,
        "legend.frameon": False,
        "legend.handletextpad": 0.5,
        "lines.linewidth": 1.0,
        "lines.markersize": 4.5,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        # A class called "$5_$10" is a name, not a formula.
        "text.parse_math": False,
        "savefig.dpi": DPI,
        "figure.dpi": 100,
    }
    with matplotlib.rc_context(settings):
        yield


def new_figure(height: float, *, square: bool = False) -> Figure:
    """Return an empty figure of the report's width and `height` inches with automatic layout.

    `square` is for panels of fixed aspect, which would otherwise be spread far apart.
    """
    layout = ConstrainedLayoutEngine(
        w_pad=0.04, h_pad=0.04, wspace=0.03, hspace=0.04, compress=square
    )
    return Figure(figsize=(WIDTH, height), layout=layout)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def grid(axes: Axes, axis: Literal["both", "x", "y"] = "y") -> None:
    """Draw faint grid lines."""
    axes.grid(True, axis=axis, which="major")


def mark(color: str, marker: str, text: str, **style: Any) -> Line2D:
    """Return a legend entry for a marker without a line."""
    return Line2D([], [], ls="", color=color, marker=marker, label=text, **style)


def legend_below(figure: Figure, handles: Sequence[Any], *, columns: int = 4) -> None:
    """Draw the figure's legend below its panels."""
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def name_rows(axes: Axes, names: Sequence[str], **text: Any) -> None:
    """Label the rows 0, 1, … of a panel, the first on top."""
    axes.set_yticks(range(len(names)), names, **text)
    axes.set_ylim(len(names) - 0.4, -0.6)


def plot_interval(
    axes: Axes,
    value: float,
    interval: Sequence[float] | None,
    row: float,
    *,
    color: str,
    marker: str = "o",
    size: float = 5.0,
    filled: bool = True,
) -> None:
    """Draw a value with its interval on a row; hollow unless `filled`."""
    if interval is not None:
        axes.plot(list(interval), [row, row], color=color, lw=1.2)
    axes.plot(value, row, marker, ms=size, color=color, mfc=color if filled else "white")


def plot_difference(
    axes: Axes, value: float, interval: Sequence[float], row: float, *, distinguishable: bool
) -> None:
    """Draw a difference with its interval: blue where it is distinguishable, else hollow grey."""
    color = BLUE if distinguishable else GREY
    plot_interval(axes, value, interval, row, color=color, filled=distinguishable)


def difference_axis(axes: Axes, *, bins: int = 5) -> None:
    """Mark zero and give the x axis of differences signed, round ticks."""
    axes.axvline(0, color=BLACK, lw=0.8)
    # A label at the very edge would stick out of the figure.
    axes.xaxis.set_major_locator(MaxNLocator(bins, prune="both"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: signed_tick(value)))
    grid(axes, "x")


def signed_tick(value: float) -> str:
    """Format a difference with its sign and no trailing zeros: `+0.5`, `−10`, `0`."""
    return "0" if abs(value) < 1e-9 else signed(value, 3).rstrip("0").rstrip(".")


def percent_ticks(axis: Axis, *, bins: int = 7) -> None:
    """Label an axis of fractions in round percentages up to 100%."""
    axis.set_major_locator(MaxNLocator(nbins=bins, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{100 * value:.4g}%" if value < 1 + 1e-9 else "")
    )


def log_nll_axis(axes: Axes) -> None:
    """Use a log scale with plain decimals as ticks: 0.1, 0.2, 0.5, 1."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(LogLocator(subs=(1.0,), numticks=12))
    grid(axes)


def epoch_ticks(axes: Axes, rungs: Sequence[int]) -> None:
    """Put ticks at the rungs; with a single rung, at round epochs before it too."""
    ticks = list(rungs)
    if len(ticks) == 1:
        candidates = MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True).tick_values(
            0, ticks[0]
        )
        ticks = [int(epoch) for epoch in candidates if 1 <= epoch <= 0.9 * ticks[0]] + ticks
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("epoch of the schedule" + " (ticks: rungs)" * (len(rungs) > 1))


def round_ticks(low: float, high: float, *, most: int = 4) -> list[float]:
    """Return at most `most` round values of a log axis: 1, 2 and 5, or 1 and 3, per decade."""
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [d * 10.0**e for e in exponents for d in digits]
        # A tick just outside stays: the axis has room at both ends.
        ticks = [value for value in ticks if low / 1.3 <= value <= high * 1.3]
        if len(ticks) <= most:
            return ticks or [low]
    return ticks[:: math.ceil(len(ticks) / most)]


def round_times(low: float, high: float, *, most: int = 4) -> list[float]:
    """Return at most `most` round times of a log axis, in seconds."""
    ticks = [value for value in _TIMES if low / 1.3 <= value <= high * 1.3]
    return ticks[:: math.ceil(len(ticks) / most)] if ticks else round_ticks(low, high, most=most)


_TIMES = [
    number * unit for unit in (1.0, 60.0) for number in (1, 2, 5, 10, 20, 30)
] + [3600.0 * number for number in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)]  # fmt: skip


def empty(axes: Axes, text: str) -> None:
    """Write the reason into an empty panel."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, transform=axes.transAxes)
