"""The student against its teacher, class by class.

Axes: N examples, K classes. Log-probabilities are float32 [N, K], labels int [N].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from analysis.figures.style import BLACK, BLUE, GREY, grid, new_figure
from analysis.text.wording import label
from common.formats import shorten, signed
from common.seeds import numpy_generator
from common.statistics.intervals import paired_difference
from common.statistics.metrics import correct

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

NAMED = 24
"""Most classes shown one by one: those that differ most."""
LEVEL = 0.95
"""Confidence that all classes' intervals hold at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDifference:
    """A class's accuracy: the student's less the ensemble's, on the same images."""

    label: int
    images: int
    value: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Zero lies outside the interval."""
        return not self.low <= 0 <= self.high


def class_differences(
    student: Floats, ensemble: Floats, labels: Ints, *, seed: int
) -> list[ClassDifference]:
    """Every class that test has, with paired intervals that hold together in 95% of cases.

    Each interval has the level 1 − 0.05/K (Bonferroni): of ten intervals of 95% each, one
    would be off zero in four reports of ten where nothing differs.
    """
    present, counts = np.unique(labels, return_counts=True)
    level = 1 - (1 - LEVEL) / len(present)
    # Twenty draws beyond either end, as far as that is affordable.
    draws = int(np.clip(40 / (1 - level), 2000, 20_000))
    right = [correct(values, labels) for values in (student, ensemble)]
    found = []
    for k, images in zip(present.tolist(), counts.tolist(), strict=True):
        mine = labels == k
        difference = paired_difference(
            right[0][mine], right[1][mine],
            rng=numpy_generator(seed, "report", "class", str(k)), level=level, draws=draws,
        )  # fmt: skip
        found.append(ClassDifference(
            label=int(k), images=int(images), value=difference.value,
            low=difference.interval.low, high=difference.interval.high,
        ))  # fmt: skip
    return found


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
