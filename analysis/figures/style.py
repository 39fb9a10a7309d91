"""How figures look: one palette, one size of type, nothing that carries no data.

The colours are Okabe and Ito's, told apart by colour-blind readers; every colour comes with
a marker or a line style of its own, so that a grey print can be read too.
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
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.text.wording import label

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, PALE, FAINT = "#6B6B6B", "#B8B8B8", "#E6E6E6"

WIDTH = 6.6
"""Inches: the text width of the report, so that figures are never scaled."""
DPI = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStyle:
    """How one row of the ledger is drawn."""

    label: str
    color: str
    marker: str


_DRAWN: Mapping[str, tuple[str, str]] = {
    "best_single": (SKY, "o"),
    "uniform_top_k": (ORANGE, "^"),
    "seeds_ensemble": (GREEN, "v"),
    "ensemble": (BLUE, "s"),
    "student_plain": (PURPLE, "P"),
    "student_fp32": (VERMILLION, "D"),
    "student_int8": (BLACK, "X"),
}


RUNG_MARKERS = ("o", "s", "D", "^", "v", "P")


def stage_style(stage: str) -> StageStyle:
    """The style of a stage; one that is not known is grey."""
    color, marker = _DRAWN.get(stage, (GREY, "h"))
    return StageStyle(label=label(stage), color=color, marker=marker)


@contextmanager
def drawing(families: Sequence[str] = ("DejaVu Sans",)) -> Iterator[None]:
    """Lend matplotlib our style for a while; the caller's settings come back after it."""
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
    """An empty figure of the report's width, `height` in inches, that lays itself out.

    `square` is for panels of fixed aspect, which would else stand far apart.
    """
    layout = ConstrainedLayoutEngine(
        w_pad=0.04, h_pad=0.04, wspace=0.03, hspace=0.04, compress=square
    )
    return Figure(figsize=(WIDTH, height), layout=layout)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure that was drawn in our style as PNG; the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def grid(axes: Axes, axis: Literal["both", "x", "y"] = "y") -> None:
    """Faint lines to read values by."""
    axes.grid(True, axis=axis, which="major")


def percent_ticks(axis: Axis, *, bins: int = 7) -> None:
    """Ticks of fractions in round percents; none above 100%."""
    axis.set_major_locator(MaxNLocator(nbins=bins, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{100 * value:.4g}%" if value < 1 + 1e-9 else "")
    )


def log_nll_axis(axes: Axes) -> None:
    """A log scale whose ticks are plain decimals: 0.1, 0.2, 0.5, 1."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(LogLocator(subs=(1.0,), numticks=12))
    grid(axes)


def epoch_ticks(axes: Axes, rungs: Sequence[int]) -> None:
    """Ticks at the rungs; before a single one, round epochs too, well apart from it."""
    ticks = list(rungs)
    if len(ticks) == 1:
        found = MaxNLocator(nbins=5, steps=[1, 2, 5, 10], integer=True).tick_values(0, ticks[0])
        ticks = [int(epoch) for epoch in found if 1 <= epoch <= 0.9 * ticks[0]] + ticks
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("epoch of the schedule" + " (ticks: rungs)" * (len(rungs) > 1))


def round_ticks(low: float, high: float, *, most: int = 4) -> list[float]:
    """At most `most` round values of a log axis from `low` to `high`; 1, 2 and 5 of a decade."""
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [d * 10.0**e for e in exponents for d in digits]
        # A tick just outside keeps its place: the axis has room at both ends.
        found = [value for value in found if low / 1.3 <= value <= high * 1.3]
        if len(found) <= most:
            return found or [low]
    return found[:: math.ceil(len(found) / most)]


def round_times(low: float, high: float, *, most: int = 4) -> list[float]:
    """As `round_ticks`, of seconds: round seconds, minutes or hours."""
    found = [value for value in _TIMES if low / 1.3 <= value <= high * 1.3]
    return found[:: math.ceil(len(found) / most)] if found else round_ticks(low, high, most=most)


_TIMES = [
    number * unit for unit in (1.0, 60.0) for number in (1, 2, 5, 10, 20, 30)
] + [3600.0 * number for number in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)]  # fmt: skip


def empty(axes: Axes, text: str) -> None:
    """Say in the panel why it is empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, transform=axes.transAxes)
