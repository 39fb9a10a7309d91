"""Figures of a run: nothing is cut off, print quality, and drawn only if there is data."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from analysis.explain.confusions import most_confused
from analysis.facts.predictions import class_differences
from analysis.figures.classes import (
    class_accuracy_figure,
    confusion_figure,
    student_classes_figure,
)
from analysis.figures.data import class_sizes_figure
from analysis.figures.draw import FIGURES, FigureSource, save_figures
from analysis.figures.explanations import (
    channel_weights_figure,
    confused_figure,
    heat_map_figure,
    spatial_weights_figure,
)
from analysis.figures.fonts import lettering
from analysis.figures.style import drawing, save_figure
from tests.analysis.figures.made import faults, made_data, made_explanations
from tests.docs import ROOT
from tests.synthetic.predictions import log_softmax


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
