"""Made-up data of every figure, and checks on what a figure shows."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from analysis.explain.confusions import ConfusedPair
from analysis.explain.examples import MOST_CLASSES, Examples
from analysis.explain.explain_run import confused_pairs
from analysis.explain.explanations import AttentionWeights, Explanations, HeatMaps, LayerWeights
from analysis.facts.data import DataFacts
from analysis.facts.importance import importances
from analysis.facts.run_facts import load_facts
from analysis.figures.draw import FigureSource
from analysis.figures.fonts import lettering
from tests.synthetic.predictions import SMALL
from tests.synthetic.run import write_run
from trainables.data.splits import SPLITS


def made_source(folder: Path) -> FigureSource:
    """A small finished run, written to `folder`, with the data of every figure."""
    facts = load_facts(write_run(folder, shape=SMALL))
    rng = np.random.default_rng(0)
    trials = importances(facts.trials, facts.space, rng=rng, draws=5)
    facts = replace(facts, importances=trials, data=made_data(rng, classes=4))
    return FigureSource(
        facts=facts,
        explanations=made_explanations(rng, pairs=confused_pairs(facts), classes=4),
        letters=lettering(facts.class_names),
    )


def made_data(rng: np.random.Generator, *, classes: int) -> DataFacts:
    rows = min(classes, MOST_CLASSES)
    return DataFacts(
        missing="",
        counts={name: rng.integers(5, 50, classes) for name in SPLITS},
        sheet=rng.integers(0, 256, (rows, 16, 16, 3), dtype=np.uint8),
        sheet_classes=tuple(range(rows)),
    )


def made_explanations(
    rng: np.random.Generator, *, pairs: Sequence[ConfusedPair], classes: int
) -> Explanations:
    """Return examples (all but one correct prediction), smooth maps and attention."""
    rows = min(classes, MOST_CLASSES)
    labels = np.repeat(np.arange(rows), 2)[1:]
    pixels = rng.integers(0, 256, (len(labels), 16, 16, 3), dtype=np.uint8)
    # Smooth, as real maps are: contours round noise take seconds.
    slopes = rng.random((2, len(labels), 16, 1)) * np.linspace(0, 1, 16)
    maps = dict(zip(("Grad-CAM", "saliency"), np.sort(slopes, axis=2), strict=True))
    examples = Examples(
        pixels=pixels, labels=labels,
        predictions=(labels + np.arange(1, 2 * rows) % 2) % classes,
        confidences=np.full(len(labels), 0.9),
    )  # fmt: skip
    return Explanations(
        stage="ensemble",
        pairs=tuple(pairs),
        confused=Examples(
            pixels=pixels[[0] * len(pairs)],
            labels=np.array([pair.truth for pair in pairs]),
            predictions=np.array([pair.predicted for pair in pairs]),
            confidences=np.full(len(pairs), 0.8),
        ),
        examples=examples,
        heat_maps=HeatMaps(trial="t0003", single=maps, ensemble=maps),
        attention=made_attention(rng, classes=classes, pixels=pixels),
    )


def made_attention(
    rng: np.random.Generator, *, classes: int, pixels: np.ndarray
) -> AttentionWeights:
    """Three blocks of CBAM."""

    def layer(block: int, weights: int, side: int | None) -> LayerWeights:
        return LayerWeights(
            block=f"block {block}",
            side=side,
            mean=rng.random(weights),
            spread=0.1 * rng.random(weights),
            class_means=rng.random((classes, weights)),
            shown=None if side is None else rng.random((len(pixels), side, side)),
        )

    channels = [layer(i, 8 * i, None) for i in (1, 2, 3)]
    places = [layer(i, 4, 2) for i in (1, 2, 3)]
    return AttentionWeights(
        trial="t0003", kind="cbam", images=4 * classes, layers=(*channels, *places), pixels=pixels
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A single mark of a figure."""

    x: float
    y: float
    filled: bool


def points(axes: Axes) -> list[Point]:
    """Return every mark that was drawn by itself, in drawing order."""
    return [
        Point(x=x[0], y=y[0], filled=line.get_markerfacecolor() != "white")
        for line, x, y in ((line, *curve(line)) for line in axes.lines)
        if len(x) == 1
    ]


def curve(line: Line2D) -> tuple[list[float], list[float]]:
    """Return the x and y values of a line."""
    x, y = (np.asarray(values, float).tolist() for values in line.get_data())
    return x, y


def bars(axes: Axes) -> list[tuple[float, float]]:
    """Return width and height of every bar, in drawing order."""
    return [
        (patch.get_width(), patch.get_height())
        for patch in axes.patches
        if isinstance(patch, Rectangle)
    ]


def row_names(axes: Axes) -> list[str]:
    """Return the tick labels of the rows of a panel."""
    return [label.get_text() for label in axes.get_yticklabels()]


def faults(figure: Figure) -> list[str]:
    """List parts that are cut off at the edge and tick labels that overlap."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw(renderer)
    box, (width, height) = figure.get_tightbbox(renderer), figure.get_size_inches()
    inside = min(box.x0, box.y0) > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02
    wrong = [] if inside else [f"{box} is not inside {width} x {height} inches"]
    for axes in figure.axes:
        boxes = [text.get_window_extent(renderer) for text in _x_labels(axes)]
        wrong += [
            f"tick labels of {axes.get_title(loc='left')!r} overlap"
            for left, right in itertools.pairwise(sorted(boxes, key=lambda b: b.x0))
            if right.x0 < left.x1 and right.y0 < left.y1 and left.y0 < right.y1
        ]
    return wrong


def _x_labels(axes: Axes) -> list[Text]:
    low, high = sorted(axes.get_xlim())
    if not axes.axison:
        return []
    return [
        label
        for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=False)
        if low <= place <= high and label.get_visible() and label.get_text()
    ]
