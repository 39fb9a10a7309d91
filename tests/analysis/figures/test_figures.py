"""Figures show the values they are given."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.explain.confusions import confusion_matrix
from analysis.facts.predictions import ClassDifference
from analysis.facts.trials import EpochFacts, best_trial
from analysis.figures.calibration import BINS, ScaledPredictions, reliability_figure
from analysis.figures.classes import (
    class_accuracy_figure,
    confusion_figure,
    student_classes_figure,
)
from analysis.figures.curves import branches, last_path, training_curves_figure
from analysis.figures.data import class_sizes_figure, contact_sheet_figure
from analysis.figures.draw import FigureSource
from analysis.figures.ensemble import HoldoutAccuracy, disagreement_figure, trial_costs_figure
from analysis.figures.explanations import channel_weights_figure, heat_map_figure
from analysis.figures.ledger import MARK_WIDTH, cost_figure, ledger_figure, side_by_side
from analysis.figures.robustness import robustness_figure
from analysis.figures.search import (
    hyperparameters_figure,
    importance_figure,
    sweep_figure,
)
from analysis.figures.style import drawing
from analysis.text.labels import NOT_DISTINGUISHABLE
from analysis.text.ledger import verdict
from analysis.text.robustness import main_stages
from ensemble.selection import diversity
from tests.analysis.figures.made import bars, curve, faults, points, row_names
from tests.synthetic.predictions import log_softmax


@pytest.fixture(autouse=True)
def styled() -> Iterator[None]:
    with drawing():
        yield


def test_the_ledger_shows_accuracies_and_differences(source: FigureSource) -> None:
    accuracy, in_points, in_nats = ledger_figure(source.ledger).axes
    rows = [row for row in source.ledger.rows if row.split == "test"]
    assert [p.x for p in points(accuracy)] == [row.accuracy for row in rows]
    assert len(row_names(accuracy)) == len(rows)
    for axes, metric, scale in ((in_points, "accuracy", 100.0), (in_nats, "nll", 1.0)):
        items = [item for item in source.ledger.differences if item.metric == metric]
        shown = list(points(axes))
        assert [p.x for p in shown] == pytest.approx([scale * item.value for item in items])
        assert [p.filled for p in shown] == [verdict(item) != NOT_DISTINGUISHABLE for item in items]
        assert axes.get_xlabel().split()[0] in ("points", "nats")


def test_the_robustness_figure_shows_families_and_differences(source: FigureSource) -> None:
    robustness = source.ledger.robustness
    assert robustness is not None
    families, differences = robustness_figure(source.ledger).axes
    stages = main_stages(source.ledger)
    expected = sorted(row.accuracy for row in robustness.rows if row.stage in stages)
    assert sorted(p.x for p in points(families)) == pytest.approx(expected)
    items = [item for item in robustness.differences if item.metric == "accuracy"]
    assert [p.x for p in points(differences)] == pytest.approx([100 * i.value for i in items])
    alone = replace(source.ledger, robustness=replace(robustness, differences=()))
    assert len(robustness_figure(alone).axes) == 1


def test_the_cost_figure_has_a_panel_per_known_cost(source: FigureSource) -> None:
    rows = [row for row in source.ledger.rows if row.split == "test"]
    axes = cost_figure(source.ledger).axes
    assert len(axes) == 3
    for panel, field in zip(axes, ("bytes", "latency_ms_batch1", "train_seconds"), strict=True):
        assert panel.get_xscale() == "log"
        shown = list(points(panel))
        assert [p.y for p in shown] == [row.accuracy for row in rows]
        assert [p.x for p in shown] == pytest.approx([getattr(row, field) for row in rows], rel=0.5)
    unknown = tuple(replace(row, bytes=None, latency_ms_batch1=0.0) for row in rows)
    assert len(cost_figure(replace(source.ledger, rows=unknown)).axes) == 1


@given(st.lists(st.sampled_from([1.0, 1.01, 1.02, 3.0, 3.05, 20.0]), min_size=1, max_size=7))
def test_marks_of_equal_cost_are_drawn_side_by_side(values: list[float]) -> None:
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


def epoch(step: int, epoch: int, phase: str) -> EpochFacts:
    return EpochFacts(step=step, epoch=epoch, phase=phase, rung=None, train_loss=1.2, val_nll=1.0,
                      val_accuracy=0.5, seconds=1.0)  # fmt: skip


def test_a_cooldown_branch_starts_at_the_trunk() -> None:
    """Rungs 3 and 6: the trunk resumes from epoch 1, where the first branch began."""
    epochs = [
        epoch(1, 1, "trunk"), epoch(2, 2, "cooldown"), epoch(3, 3, "cooldown"),
        epoch(4, 2, "trunk"), epoch(5, 3, "trunk"), epoch(6, 4, "cooldown"),
    ]  # fmt: skip
    steps = [[epoch.step for epoch in line] for line in branches(epochs)]
    assert steps == [[1, 4, 5], [1, 2, 3], [5, 6]]
    assert [epoch.step for epoch in last_path(epochs)] == [1, 4, 5, 6]


def test_training_curves_end_at_the_last_score(source: FigureSource) -> None:
    facts = source.facts
    assert facts.best is not None
    last = last_path(facts.best.epochs)[-1]
    figure = training_curves_figure(facts.best, facts.seed_trials, facts.spec.rungs, val=60)
    loss, accuracy = figure.axes
    ends = [curve(line)[1][-1] for line in loss.lines]
    assert ends[-2:] == [last.train_loss, last.val_nll], "the best trial is drawn last"
    assert len(loss.lines) == 2 * (1 + len(facts.seed_trials))
    assert any(curve(line)[1][-1] == last.val_accuracy for line in accuracy.lines)


def test_the_sweep_shows_every_score_and_every_epoch(source: FigureSource) -> None:
    search = source.facts.search_trials
    above, below = sweep_figure(source.facts.trials, source.facts.spec.rungs).axes
    assert [height for _, height in bars(below)] == [len(t.epochs) for t in search]
    marks = [(p.x, p.y) for p in points(above)]
    scores = [(t.number, score) for t in search for score in t.scores.values()]
    best = best_trial(search)
    assert best is not None
    assert set(marks) == set(scores)
    assert marks[-1] == (best.number, best.scores[best.rung or 0]), "the ring"


def test_every_searched_value_has_a_panel(source: FigureSource) -> None:
    facts = source.facts
    axes = hyperparameters_figure(facts.trials, facts.space, facts.spec.rungs).axes
    shown = [panel for panel in axes if panel.axison]
    assert [p.get_title(loc="left") for p in shown] == [p.name for p in facts.space.parameters]
    scored = [t for t in facts.search_trials if facts.spec.rungs[0] in t.scores]
    for panel, parameter in zip(shown, facts.space.parameters, strict=True):
        active = [t for t in scored if parameter.name in facts.space.active(t.recipe)]
        assert len(curve(panel.lines[0])[1]) == len(active)


def test_importances_are_drawn_with_their_names(source: FigureSource) -> None:
    importances = source.facts.importances
    assert importances is not None
    (axes,) = importance_figure(importances).axes
    assert row_names(axes) == [item.name for item in importances.values]
    assert [p.x for p in points(axes)] == [item.value for item in importances.values]
    assert [p.filled for p in points(axes)] == [item.distinguishable for item in importances.values]


def test_trial_costs_place_the_ensemble_at_the_cost_of_its_members(source: FigureSource) -> None:
    trials = source.facts.trials
    members = {trials[0].trial: 0.5, trials[1].trial: 0.5}
    hits = {trial.trial: 50 + i for i, trial in enumerate(trials[:3])}
    holdout = HoldoutAccuracy(hits=hits, images=100, members=members, ensemble=0.9)
    by_time, _ = trial_costs_figure(trials, holdout).axes
    shown = list(points(by_time))
    assert sorted(p.y for p in shown) == [0.5, 0.51, 0.52, 0.9]
    assert {p.y for p in shown if not p.filled} == {0.52}
    assert shown[-1].x == pytest.approx(trials[0].seconds + trials[1].seconds)


def test_disagreement_shows_pairs_and_weights(source: FigureSource) -> None:
    log_probs = source.facts.member_log_probs
    predictions = np.stack([values.argmax(axis=1) for values in log_probs.values()])
    figure = disagreement_figure(log_probs, source.facts.weights, source.facts.holdout_labels)
    differ, _, weights = figure.axes
    np.testing.assert_array_equal(differ.images[0].get_array(), diversity.disagreement(predictions))
    assert [width for width, _ in bars(weights)] == [
        source.facts.weights[name] for name in log_probs
    ]


def test_disagreement_of_identical_members_is_drawn() -> None:
    log_probs = log_softmax(np.random.default_rng(0).standard_normal((20, 3)))
    figure = disagreement_figure({"a": log_probs, "b": log_probs}, {"a": 1.0}, None)
    assert faults(figure) == []


def test_accuracy_by_class_is_sorted_worst_first(source: FigureSource) -> None:
    labels, names = source.labels, source.names
    (axes,) = class_accuracy_figure(source.predictions, labels, names).axes
    accuracies = {
        stage: [float((values.argmax(axis=1) == labels)[labels == k].mean()) for k in range(4)]
        for stage, values in source.predictions.items()
    }
    first = next(iter(accuracies.values()))
    order = sorted(range(4), key=lambda k: first[k])
    expected = [accuracy[k] for accuracy in accuracies.values() for k in order]
    assert [p.x for p in points(axes)] == pytest.approx(expected)
    assert row_names(axes) == [f"{names[k]}  ({(labels == k).sum()})" for k in order]


def test_confusion_matrices_show_every_count(source: FigureSource) -> None:
    figure = confusion_figure(source.predictions, source.labels, source.names)
    for axes, values in zip(figure.axes, source.predictions.values(), strict=False):
        matrix = confusion_matrix(values, source.labels, 4)
        numbers = {text.get_position(): int(text.get_text()) for text in axes.texts}
        assert numbers == {(j, i): n for (i, j), n in np.ndenumerate(matrix) if n}


def test_class_differences_are_sorted_and_filled_where_distinguishable() -> None:
    spans = [(-0.1, -0.2, -0.01), (0.05, -0.1, 0.2), (-0.3, -0.5, -0.1)]
    differences = [
        ClassDifference(label=k, images=50, value=value, low=low, high=high)
        for k, (value, low, high) in enumerate(spans)
    ]
    (axes,) = student_classes_figure(differences, "student_int8", ("a", "b", "c")).axes
    assert [p.x for p in points(axes)] == pytest.approx([-30, -10, 5])
    assert [p.filled for p in points(axes)] == [True, True, False]
    assert row_names(axes) == ["c  (50)", "a  (50)", "b  (50)"]


def test_the_reliability_diagram_shows_each_bin() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    log_probs = log_softmax(rng.standard_normal((200, 3)) + 1.5 * np.eye(3)[labels])
    stages = {"ensemble": ScaledPredictions(after=log_probs, before=None)}
    figure = reliability_figure(stages, labels)
    upper, lower = figure.axes[0], figure.axes[2]
    confidence, right = np.exp(log_probs.max(axis=1)), log_probs.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    expected = [
        (confidence[bins == b].mean(), right[bins == b].mean()) for b in range(BINS) if b in bins
    ]
    np.testing.assert_allclose([(p.x, p.y) for p in points(upper)], expected, rtol=1e-6)
    assert sum(height for _, height in bars(lower)) == len(labels)


def test_every_example_is_drawn_with_its_maps(source: FigureSource) -> None:
    examples, maps = source.explanations.examples, source.explanations.heat_maps
    assert examples is not None
    figure = heat_map_figure(examples, maps, source.names)
    images = sum(bool(axes.images) for axes in figure.axes)
    assert images == len(examples.labels) * (1 + len(maps.columns()))


def test_channel_weights_are_sorted_by_their_mean(source: FigureSource) -> None:
    attention = source.explanations.attention
    assert attention is not None
    axes = channel_weights_figure(attention, source.names).axes
    for column, layer in enumerate(attention.channel_layers):
        np.testing.assert_array_equal(axes[column].lines[0].get_ydata(), np.sort(layer.mean))
        order = np.argsort(layer.mean)
        expected = (layer.class_means - layer.mean)[:, order]
        np.testing.assert_array_equal(axes[3 + column].images[0].get_array(), expected)


@pytest.mark.parametrize("classes", [4, 40])
def test_class_sizes_add_up(source: FigureSource, classes: int) -> None:
    data = source.facts.data
    data = replace(data, counts={split: np.resize(n, classes) for split, n in data.counts.items()})
    names = [f"class {k}" for k in range(classes)]
    (axes,) = class_sizes_figure(data, names).axes
    sizes = [width if classes == 4 else height for width, height in bars(axes)]
    assert sum(sizes) == sum(int(n.sum()) for n in data.counts.values())


def test_the_contact_sheet_shows_every_image(source: FigureSource) -> None:
    data = source.facts.data
    figure = contact_sheet_figure(data, source.names)
    assert sum(len(axes.images) for axes in figure.axes) == len(data.sheet_classes)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == list(source.names)
