"""Figures: right numbers, nothing clipped, nothing global changed."""

import itertools
import subprocess
import sys
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

from analysis.explain.attention import AttentionFacts, describe_gate
from analysis.explain.confusions import most_confused
from analysis.explain.examples import MOST_CLASSES, Chosen, Maps
from analysis.explain.pictures import confused_pairs
from analysis.facts.data_facts import DataFacts
from analysis.facts.importance import importances
from analysis.facts.run_facts import RunFacts, load_facts
from analysis.facts.trials import EpochFacts, best_trial, trials_of
from analysis.figures import draw as figures
from analysis.figures import fonts
from analysis.figures.attention_figures import channel_gates, spatial_gates
from analysis.figures.class_figures import confusion, confusion_matrix, per_class
from analysis.figures.curve_figures import last_path
from analysis.figures.fonts import lettering
from analysis.figures.picture_figures import class_sizes
from analysis.figures.result_figures import MARK, disagreement, side_by_side
from analysis.figures.sheet_figures import confused, explained
from analysis.figures.student_figures import class_differences, student_classes
from analysis.figures.style import drawing, round_ticks, round_times
from analysis.figures.sweep_figures import branches
from common.statistics.intervals import paired_difference
from common.statistics.metrics import apply_temperature
from tests.docs import ROOT
from tests.synthetic import SMALL, log_softmax, write_run
from trainables.data.splits import SPLITS


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> RunFacts:
    folder = write_run(tmp_path_factory.mktemp("runs") / "drawn", shape=SMALL)
    found = load_facts(folder)
    rng = np.random.default_rng(0)
    trials = importances(found.trials, found.space, rng=rng, draws=5)
    pairs = confused_pairs(found)
    data = pictured(rng, classes=4)
    shown = Chosen(
        pixels=data.sheet[[0] * len(pairs)] if data.sheet is not None else np.zeros(0),
        labels=np.array([pair.truth for pair in pairs]),
        answers=np.array([pair.answer for pair in pairs]),
        confidences=np.full(len(pairs), 0.8),
    )
    return replace(found, importances=trials, data=replace(data, confused=shown))


def pictured(rng: np.random.Generator, *, classes: int) -> DataFacts:
    """Made-up images of a run, maps of them, and gates."""
    rows = min(classes, MOST_CLASSES)
    labels = np.repeat(np.arange(rows), 2)[1:]
    answers = (labels + np.arange(1, 2 * rows) % 2) % classes
    pixels = rng.integers(0, 256, (len(labels), 16, 16, 3), dtype=np.uint8)
    # Smooth, as maps are: round noise, contours take seconds.
    slopes = rng.random((2, len(labels), 16, 1)) * np.linspace(0, 1, 16)
    heat = dict(zip(("Grad-CAM", "saliency"), np.sort(slopes, axis=2), strict=True))
    return DataFacts(
        missing="",
        counts={name: rng.integers(5, 50, classes) for name in SPLITS},
        sheet=pixels[:rows],
        sheet_classes=tuple(range(rows)),
        chosen=Chosen(pixels=pixels, labels=labels, answers=answers,
                      confidences=np.full(len(labels), 0.9)),
        maps=Maps(trial="t0003", single=heat, ensemble=heat),
        attention=gated(rng, classes=classes, pixels=pixels),
    )  # fmt: skip


def gated(rng: np.random.Generator, *, classes: int, pixels: np.ndarray) -> AttentionFacts:
    """Three blocks of CBAM."""
    labels = np.arange(4 * classes) % classes
    channels = [
        describe_gate(f"block {i}, channels", rng.random((len(labels), 8 * i)), labels,
                      classes=classes, side=None)
        for i in (1, 2, 3)
    ]  # fmt: skip
    places = [
        replace(
            describe_gate(f"block {i}, places", rng.random((len(labels), 4)), labels,
                          classes=classes, side=2),
            shown=rng.random((len(pixels), 2, 2)),
        )
        for i in (1, 2, 3)
    ]  # fmt: skip
    scores = rng.integers(0, 2, (2, 90)).astype(float)
    return AttentionFacts(
        trial="t0003", kind="cbam", images=len(labels), gates=(*channels, *places), holdout=90,
        changed=9, loss=paired_difference(*scores, rng=rng), pixels=pixels,
    )  # fmt: skip


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


@pytest.mark.parametrize("name", sorted(figures.PLANS))
def test_nothing_is_cut_off_or_overlaps(facts: RunFacts, name: str) -> None:
    letters = lettering(facts.class_names)
    with drawing(letters.families):
        figure = figures.PLANS[name].draw(facts, letters)
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
            per_class(shown, labels, names),
            confusion(shown, labels, names),
            student_classes(differences, "student_int8", names),
            class_sizes(pictured(rng, classes=classes), names),
        ):
            assert faults(figure) == []
            assert figure.get_figheight() < 9


@pytest.mark.parametrize("classes", [2, 200])
def test_explanations_of_any_number_of_classes_are_drawn_whole(classes: int) -> None:
    rng = np.random.default_rng(classes)
    data = pictured(rng, classes=classes)
    chosen, attention = data.chosen, data.attention
    assert chosen is not None
    assert attention is not None
    pairs = most_confused(2 + 50 * np.eye(classes, dtype=int))
    names = lettering([f"a rather long name of class number {i}" for i in range(classes)]).names
    alone = {"saliency": chosen.pixels[..., 0]}
    with drawing():
        for figure in (
            explained(chosen, data.maps, names),
            explained(chosen, replace(data.maps, ensemble={}, single=alone), names),
            confused(chosen, pairs, names),
            channel_gates(attention, names),
            spatial_gates(attention),
        ):
            assert faults(figure) == []
            assert figure.get_figheight() < 9
            renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
            cells = [axes.get_window_extent(renderer) for axes in figure.axes]
            boxes = [text.get_window_extent(renderer) for text in figure.texts if text.get_text()]
            assert not any(box.overlaps(cell) for box in boxes for cell in cells)


def test_figures_are_saved_at_print_quality(facts: RunFacts, tmp_path: Path) -> None:
    (tmp_path / "per_class.png").write_text("stale")
    before = dict(matplotlib.rcParams)
    saved = figures.save_figures(facts, tmp_path)
    assert [path.stem for path in saved] == list(figures.PLANS)
    assert dict(matplotlib.rcParams) == before
    for path in saved:
        with Image.open(path) as image:
            assert image.width == 1320, "6.6 inches at 200 dpi"
    with Image.open(tmp_path / "per_class.png") as image:
        assert image.format == "PNG"


def test_one_trial_alone_is_not_compared(facts: RunFacts, tmp_path: Path) -> None:
    assert facts.best is not None
    alone = replace(facts, trials=(facts.best,), importances=None)
    saved = {path.stem for path in figures.save_figures(alone, tmp_path)}
    assert "training_curves" in saved
    assert not saved & {"learning_curves", "sweep", "hyperparameters", "importance", "trial_costs"}
    with_seed = replace(alone, trials=(facts.best, facts.seed_trials[0]))
    saved = {path.stem for path in figures.save_figures(with_seed, tmp_path)}
    assert {"learning_curves", "trial_costs"} <= saved
    assert not saved & {"sweep", "hyperparameters"}


def test_a_figure_without_data_is_removed(facts: RunFacts, tmp_path: Path) -> None:
    early = replace(
        facts, selection=None, ledger=None, test_labels=None, test_log_probs={}, member_log_probs={}
    )
    folder = tmp_path / "figures"
    folder.mkdir()
    (folder / "ledger.png").write_text("of another state of the run")
    saved = [path.stem for path in figures.save_figures(early, folder)]
    kept = ["training_curves", "learning_curves", "sweep", "hyperparameters", "importance",
            "trial_costs", "explained", "attention", "attention_places",
            "class_sizes", "contact_sheet"]  # fmt: skip
    assert saved == kept
    assert sorted(path.stem for path in folder.iterdir()) == sorted(saved)


def test_the_same_facts_give_the_same_bytes(facts: RunFacts, tmp_path: Path) -> None:
    letters = lettering(facts.class_names)
    for name in ("a.png", "b.png"):
        with drawing():
            figure = figures.PLANS["disagreement"].draw(facts, letters)
            FigureCanvasAgg(figure)
            figure.savefig(tmp_path / name, metadata={"Software": None})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_pyplot_is_never_loaded() -> None:
    absent = ("matplotlib.pyplot", "torch", "ray", "optuna", "mlflow", "pandas")
    code = f"import sys, analysis.report.build; print([m for m in {absent} if m in sys.modules])"
    root = ROOT
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert result.stdout.strip() == "[]"


@given(st.integers(2, 6), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_confusion_matrix_counts(classes: int, pairs: list[tuple[int, int]]) -> None:
    truth = np.array([a % classes for a, _ in pairs])
    answers = np.array([b % classes for _, b in pairs])
    slow = np.zeros((classes, classes), int)
    for i, j in zip(truth, answers, strict=True):
        slow[i, j] += 1
    found = confusion_matrix(np.eye(classes)[answers], truth, classes)
    np.testing.assert_array_equal(found, slow)


@given(st.floats(0.3, 3.0), st.integers(0, 1000))
def test_a_temperature_can_be_undone(temperature: float, seed: int) -> None:
    log_probs = log_softmax(np.random.default_rng(seed).standard_normal((5, 4)))
    after = apply_temperature(log_probs, temperature)
    before = figures.before_temperature(after, temperature)
    assert before is not None
    np.testing.assert_allclose(before, log_probs, atol=1e-5)
    assert figures.before_temperature(after, None) is None


def test_every_stage_knows_its_temperature(facts: RunFacts) -> None:
    known = {stage: figures.temperature_of(facts, stage) for stage in facts.test_log_probs}
    assert known["student_fp32"] == known["student_plain"] == 1.2143
    assert known["student_int8"] == 1.2391
    assert known["ensemble"] == (facts.selection or {})["temperature"]
    assert None not in known.values()


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
        figure = disagreement({"a": log_probs, "b": log_probs}, {"a": 1.0}, None)
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
    step = MARK * np.log(limits[1] / limits[0])
    places = side_by_side(values, limits)
    for value, place in zip(values, places, strict=True):
        near = [other for other in values if abs(np.log(other / value)) < 0.1]
        assert abs(np.log(place / value)) <= 0.1 + step * (len(near) - 1) / 2
        if len(near) == 1:
            assert place == pytest.approx(value)
    gaps = np.diff(np.sort(np.log(places)))
    assert len(gaps) == 0 or gaps.min() > 0.99 * step


def test_class_differences_hold_together() -> None:
    """Equal predictions: no class apart. One class always lost: that one, and by all of it."""
    labels = np.repeat(np.arange(3), 40)
    right = log_softmax(8.0 * np.eye(3)[labels])
    lost = right.copy()
    lost[labels == 1] = log_softmax(8.0 * np.eye(3)[np.full(40, 2)])
    assert not any(d.distinguishable for d in class_differences(right, right, labels, seed=0))
    found = class_differences(lost, right, labels, seed=0)
    assert [d.label for d in found if d.distinguishable] == [1]
    assert found[1].value == -1.0
    assert found[1].images == 40


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
