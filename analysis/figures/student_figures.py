"""The student against its teacher, class by class.

Axes: N examples, K classes. Log-probabilities are float32 [N, K], labels int [N].
"""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.facts.predictions import ClassDifference
from analysis.figures.style import BLACK, BLUE, GREY, grid, new_figure
from analysis.text.wording import label
from common.formats import shorten, signed

NAMED = 24
"""Most classes shown one by one: those that differ most."""


def student_classes(
    found: Sequence[ClassDifference], stage: str, class_names: Sequence[str]
) -> Figure:
    """Differences in accuracy, worst for the student first; hollow where zero is inside."""
    order = sorted(found, key=lambda item: (-abs(item.value), item.label))[:NAMED]
    order.sort(key=lambda item: (item.value, item.label))
    figure = new_figure(0.75 + 0.16 * len(order))
    axes = figure.subplots()
    for y, item in enumerate(order):
        color = BLUE if item.distinguishable else GREY
        axes.plot([100 * item.low, 100 * item.high], [y, y], color=color, lw=1.2)
        axes.plot(100 * item.value, y, "o", ms=4.5, color=color,
                  mfc=color if item.distinguishable else "white")  # fmt: skip
    axes.axvline(0, color=BLACK, lw=0.8)
    axes.set_yticks(
        range(len(order)), [f"{shorten(class_names[i.label], 28)}  ({i.images})" for i in order]
    )
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(7, prune="both"))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda v, _: "0" if abs(v) < 1e-9 else signed(v, 1).removesuffix(".0"))
    )
    axes.set_xlabel(f"accuracy of the {label(stage)} less the ensemble's, points (right: better)")
    grid(axes, "x")
    return figure
