"""Figures: right numbers, nothing clipped, nothing global changed."""

import itertools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from analysis.explain.confusions import ConfusedPair, most_confused
from analysis.explain.examples import MOST_CLASSES, Examples
from analysis.explain.explain_run import confused_pairs
from analysis.explain.explanations import (
    AttentionWeights,
    Explanations,
    HeatMaps,
    LayerWeights,
)
from analysis.facts.data import DataFacts
from analysis.facts.importance import importances
from analysis.facts.predictions import class_differences
from analysis.facts.run_facts import load_facts
from analysis.facts.trials import EpochFacts, best_trial, trials_of
from analysis.figures import fonts
from analysis.figures.classes import (
    class_accuracy_figure,
    confusion_figure,
    student_classes_figure,
)
from analysis.figures.curves import branches, last_path
from analysis.figures.data import class_sizes_figure
from analysis.figures.draw import FIGURES, FigureSource, save_figures
from analysis.figures.ensemble import disagreement_figure
from analysis.figures.explanations import (
    channel_weights_figure,
    confused_figure,
    heat_map_figure,
    spatial_weights_figure,
)
from analysis.figures.fonts import lettering
from analysis.figures.ledger import MARK_WIDTH, side_by_side
from analysis.figures.style import drawing, round_ticks, round_times, save_figure
from tests.docs import ROOT
from tests.synthetic import SMALL, log_softmax, write_run
from trainables.data.splits import SPLITS


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FigureSource:
    """A small finished run with every figure's data."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "drawn", shape=SMALL)
    facts = load_facts(folder)
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
    """Examples of every class but one correct answer, with smooth maps and attention."""
    rows = min(classes, MOST_CLASSES)
    labels = np.repeat(np.arange(rows), 2)[1:]
    pixels = rng.integers(0, 256, (len(labels), 16, 16, 3), dtype=np.uint8)
    # Smooth, as real maps are: contours round noise take seconds.
    slopes = rng.random((2, len(labels), 16, 1)) * np.linspace(0, 1, 16)
    maps = dict(zip(("Grad-CAM", "saliency"), np.sort(slopes, axis=2), strict=True))
    examples = Examples(
        pixels=pixels, labels=labels,
        answers=(labels + np.arange(1, 2 * rows) % 2) % classes,
        confidences=np.full(len(labels), 0.9),
    )  # fmt: skip
    return Explanations(
        stage="ensemble",
        pairs=tuple(pairs),
        confused=Examples(
            pixels=pixels[[0] * len(pairs)],
            labels=np.array([pair.truth for pair in pairs]),
            answers=np.array([pair.answer for pair in pairs]),
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


def faults(figure: Figure) -> list[str]:
    """What a reader would trip over: parts cut off at the edge, labels on one another."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw(renderer)
    box, (width, height) = figure.get_tightbbox(renderer), figure.get_size_inches()
    inside = min(box.x0, box.y0) > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02
    found = [] if inside else [f"{box} is not inside {width} x {height} inches"]
    for axes in figure.axes:
        boxes = [text.get_window_extent(renderer) for text in _x_labels(axes)]
        found += [
            f"tick labels of {axes.get_title(loc='left')!r} overlap"
            for left, right in itertools.pairwise(sorted(boxes, key=lambda b: b.x0))
            if right.x0 < left.x1 and right.y0 < left.y1 and left.y0 < right.y1
        ]
    return found


def _x_labels(axes: Axes) -> list[Text]:
    low, high = sorted(axes.get_xlim())
    if not axes.axison:
        return []
    return [
        label
        for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=False)
        if low <= place <= high and label.get_visible() and label.get_text()
    ]


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_nothing_is_cut_off_or_overlaps(source: FigureSource, name: str) -> None:
    with drawing(source.letters.families):
        figure = FIGURES[name].draw(source)
        assert faults(figure) == []


@pytest.mark.parametrize("classes", [2, 20, 45, 200])
def test_any_number_of_classes_is_drawn_whole(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 6 * classes)
    logits = rng.standard_normal((len(labels), classes)) + 3.0 * np.eye(classes)[labels]
    shown = {"ensemble": log_softmax(logits), "student_int8": log_softmax(0.8 * logits)}
    names = lettering([f"a rather long name of class number {i}" for i in range(classes)]).names
    with drawing():
        differences = class_differences(shown["student_int8"], shown["ensemble"], labels, seed=0)
        for figure in (
            class_accuracy_figure(shown, labels, names),
            confusion_figure(shown, labels, names),
            student_classes_figure(differences, "student_int8", names),
            class_sizes_figure(made_data(rng, classes=classes), names),
        ):
            assert faults(figure) == []
            assert figure.get_figheight() < 9


@pytest.mark.parametrize("classes", [2, 200])
def test_explanations_of_any_number_of_classes_are_drawn_whole(classes: int) -> None:
    rng = np.random.default_rng(classes)
    pairs = most_confused(2 + 50 * np.eye(classes, dtype=int))
    explanations = made_explanations(rng, pairs=pairs, classes=classes)
    examples, maps, attention = (
        explanations.examples, explanations.heat_maps, explanations.attention
    )  # fmt: skip
    assert examples is not None
    assert attention is not None
    names = lettering([f"a rather long name of class number {i}" for i in range(classes)]).names
    alone = {"saliency": examples.pixels[..., 0]}
    with drawing():
        for figure in (
            heat_map_figure(examples, maps, names),
            heat_map_figure(examples, replace(maps, ensemble={}, single=alone), names),
            confused_figure(examples, pairs, names),
            channel_weights_figure(attention, names),
            spatial_weights_figure(attention),
        ):
            assert faults(figure) == []
            assert figure.get_figheight() < 9
            renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
            cells = [axes.get_window_extent(renderer) for axes in figure.axes]
            boxes = [text.get_window_extent(renderer) for text in figure.texts if text.get_text()]
            assert not any(box.overlaps(cell) for box in boxes for cell in cells)


def save(source: FigureSource, folder: Path) -> list[str]:
    """Save a run's figures and return their names."""
    saved = save_figures(source.facts, source.explanations, folder)
    return [path.stem for path in saved]


def test_figures_are_saved_at_print_quality(source: FigureSource, tmp_path: Path) -> None:
    (tmp_path / "per_class.png").write_text("stale")
    before = dict(matplotlib.rcParams)
    assert save(source, tmp_path) == list(FIGURES)
    assert dict(matplotlib.rcParams) == before
    for name in FIGURES:
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.format == "PNG"
            assert image.width == 1320, "6.6 inches at 200 dpi"


def test_a_single_trial_is_not_compared(source: FigureSource, tmp_path: Path) -> None:
    facts = source.facts
    assert facts.best is not None
    alone = replace(source, facts=replace(facts, trials=(facts.best,), importances=None))
    saved = set(save(alone, tmp_path))
    assert "training_curves" in saved
    assert not saved & {"learning_curves", "sweep", "hyperparameters", "importance", "trial_costs"}
    both = replace(alone.facts, trials=(facts.best, facts.seed_trials[0]))
    saved = set(save(replace(alone, facts=both), tmp_path))
    assert {"learning_curves", "trial_costs"} <= saved
    assert not saved & {"sweep", "hyperparameters"}


def test_figures_without_data_are_removed(source: FigureSource, tmp_path: Path) -> None:
    early = replace(
        source.facts, selection=None, ledger=None, test_labels=None, test_log_probs={},
        member_log_probs={},
    )  # fmt: skip
    unexplained = replace(source.explanations, pairs=(), confused=None)
    (tmp_path / "ledger.png").write_text("of another state of the run")
    saved = save(replace(source, facts=early, explanations=unexplained), tmp_path)
    kept = ["training_curves", "learning_curves", "sweep", "hyperparameters", "importance",
            "trial_costs", "explained", "attention", "attention_places",
            "class_sizes", "contact_sheet"]  # fmt: skip
    assert saved == kept
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(saved)


def test_the_same_facts_give_the_same_bytes(source: FigureSource, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        with drawing():
            save_figure(FIGURES["disagreement"].draw(source), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_pyplot_is_never_loaded() -> None:
    absent = ("matplotlib.pyplot", "torch", "ray", "optuna", "mlflow", "pandas")
    code = f"import sys, analysis.report.build; print([m for m in {absent} if m in sys.modules])"
    root = ROOT
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert result.stdout.strip() == "[]"


def _epoch(step: int, epoch: int, phase: str) -> EpochFacts:
    return EpochFacts(step=step, epoch=epoch, phase=phase, rung=None, train_loss=1.2, val_nll=1.0,
                      val_accuracy=0.5, seconds=1.0)  # fmt: skip


def test_a_cooldown_branch_starts_at_the_trunk() -> None:
    """Rungs 3 and 6: the trunk goes on from epoch 1, where the first branch began."""
    epochs = [
        _epoch(1, 1, "trunk"), _epoch(2, 2, "cooldown"), _epoch(3, 3, "cooldown"),
        _epoch(4, 2, "trunk"), _epoch(5, 3, "trunk"), _epoch(6, 4, "cooldown"),
    ]  # fmt: skip
    steps = [[epoch.step for epoch in line] for line in branches(epochs)]
    assert steps == [[1, 4, 5], [1, 2, 3], [5, 6]]
    assert [epoch.step for epoch in last_path(epochs)] == [1, 4, 5, 6]


def test_a_repeated_report_counts_once() -> None:
    start = {"event": "trial_started", "trial": "t0000", "number": 0, "kind": "search",
             "recipe": {}, "attempt": 1}  # fmt: skip
    first = {"event": "epoch", "trial": "t0000", "step": 1, "epoch": 1, "phase": "cooldown",
             "rung": 1, "val_nll": 0.5, "val_accuracy": 0.9, "seconds": 2.0}  # fmt: skip
    events = [start, first, {"event": "trial_retried", "trial": "t0000", "attempt": 2,
                             "reason": "killed"}, {**first, "val_nll": float("nan")}]  # fmt: skip
    (trial,) = trials_of(events, lambda _: None)
    assert trial.scores == {1: 0.5}
    assert (trial.retries, trial.status, trial.seconds) == (1, "unfinished", 2.0)
    assert best_trial([trial]) is trial
    assert best_trial([]) is None


def test_disagreement_of_identical_members_is_drawn() -> None:
    log_probs = log_softmax(np.random.default_rng(0).standard_normal((20, 3)))
    with drawing():
        figure = disagreement_figure({"a": log_probs, "b": log_probs}, {"a": 1.0}, None)
        assert faults(figure) == []


@given(st.floats(1e-3, 1e6), st.floats(1.0, 1e5))
def test_ticks_of_a_log_axis_are_few_and_round(low: float, ratio: float) -> None:
    ticks = round_ticks(low, low * ratio)
    assert 1 <= len(ticks) <= 4
    assert ticks == sorted(ticks)
    if ratio > 5:
        assert all(low / 1.31 <= tick <= low * ratio * 1.31 for tick in ticks)


@given(st.floats(1e-2, 1e5), st.floats(1.0, 1e4))
def test_ticks_of_times_are_few_and_round(low: float, ratio: float) -> None:
    ticks = round_times(low, low * ratio)
    assert 1 <= len(ticks) <= 4
    assert ticks == sorted(ticks)
    if low > 1:
        assert all(
            tick % (3600 if tick >= 3600 else 60 if tick >= 60 else 1) == 0 for tick in ticks
        ) or ticks == round_ticks(low, low * ratio)


@given(st.lists(st.sampled_from([1.0, 1.01, 1.02, 3.0, 3.05, 20.0]), min_size=1, max_size=7))
def test_marks_of_one_cost_stand_side_by_side(values: list[float]) -> None:
    limits = (1 / 1.7, 20 * 1.7)
    step = MARK_WIDTH * np.log(limits[1] / limits[0])
    places = side_by_side(values, limits)
    for value, place in zip(values, places, strict=True):
        near = [other for other in values if abs(np.log(other / value)) < 0.1]
        assert abs(np.log(place / value)) <= 0.1 + step * (len(near) - 1) / 2
        if len(near) == 1:
            assert place == pytest.approx(value)
    gaps = np.diff(np.sort(np.log(places)))
    assert len(gaps) == 0 or gaps.min() > 0.99 * step


def test_lettering_keeps_plain_names_and_numbers_the_unshowable() -> None:
    hostile = ["$a_1$ and $b^2$", "*bold* #let", "Щука", "line\nbreak", "", "\U000f0000", "x" * 90]
    letters = lettering(hostile)
    assert letters.names[:4] == ("$a_1$ and $b^2$", "*bold* #let", "Щука", "line break")
    assert letters.names[4] == "class 4"
    assert letters.names[5] in ("class 5", "\U000f0000")
    assert len(letters.names[6]) == 28
    assert letters.families[0] == "DejaVu Sans"


def test_lettering_finds_the_font_that_has_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """A font stands in that has the letters which the base font lacks, as one for CJK would."""
    stand_in = fonts.FOLDER / "DejaVuSans.ttf"
    base = fonts._characters(stand_in) - {ord("λ")}
    monkeypatch.setattr(
        fonts,
        "_characters",
        lambda path: (
            base if path == stand_in else base | {ord("λ")} if "STIXGeneral" in path.name else set()
        ),
    )
    letters = lettering(["λ", "b"])
    assert letters.names == ("λ", "b")
    assert letters.families == ("DejaVu Sans", "STIXGeneral")
    assert letters.renamed == 0
