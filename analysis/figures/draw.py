"""The list of a run's figures: when each has data, and the function that draws it.

Axes: N examples, K classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.explain.explanations import AttentionWeights, Explanations
from analysis.facts.predictions import (
    before_temperature,
    main_stages,
    student_differences,
    student_stage,
    temperature_of,
)
from analysis.facts.run_facts import RunFacts
from analysis.figures.calibration import ScaledPredictions, reliability_figure
from analysis.figures.classes import (
    class_accuracy_figure,
    confusion_figure,
    student_classes_figure,
)
from analysis.figures.curves import learning_curves_figure, training_curves_figure
from analysis.figures.data import class_sizes_figure, contact_sheet_figure
from analysis.figures.ensemble import (
    HoldoutAccuracy,
    disagreement_figure,
    trial_costs_figure,
)
from analysis.figures.explanations import (
    channel_weights_figure,
    confused_figure,
    heat_map_figure,
    spatial_weights_figure,
)
from analysis.figures.fonts import Lettering, lettering
from analysis.figures.front import front_figure
from analysis.figures.ledger import cost_figure, ledger_figure
from analysis.figures.robustness import robustness_figure
from analysis.figures.search import hyperparameters_figure, importance_figure, sweep_figure
from analysis.figures.style import drawing, save_figure
from analysis.text.ledger import rows
from ensemble.ledger.ledger import Ledger
from ensemble.selection.selection import FrontPoint

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureSource:
    """The data that figures are drawn from."""

    facts: RunFacts
    explanations: Explanations
    letters: Lettering

    @property
    def names(self) -> tuple[str, ...]:
        """The class names as shown."""
        return self.letters.names

    @property
    def ledger(self) -> Ledger:
        """The run's ledger."""
        assert self.facts.ledger is not None
        return self.facts.ledger

    @property
    def labels(self) -> Ints:
        """The labels of test."""
        assert self.facts.test_labels is not None
        return self.facts.test_labels

    @property
    def predictions(self) -> dict[str, Floats]:
        """Test log-probabilities of the stages shown side by side."""
        return {stage: self.facts.test_log_probs[stage] for stage in main_stages(self.facts)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FigurePlan:
    """One figure: a check that the run has its data, and the function that draws it."""

    ready: Callable[[FigureSource], bool]
    draw: Callable[[FigureSource], Figure]


def save_figures(facts: RunFacts, explanations: Explanations, folder: Path) -> list[Path]:
    """Draw every figure that the run has data for into `folder`, as NAME.png.

    Figures of an earlier report that the run has no data for are removed, so the
    folder never mixes two states of a run. The same facts give the same bytes.
    """
    source = FigureSource(
        facts=facts, explanations=explanations, letters=lettering(facts.class_names)
    )
    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    for name, plan in FIGURES.items():
        path = folder / f"{name}.png"
        if not plan.ready(source):
            path.unlink(missing_ok=True)
            continue
        with drawing(source.letters.families):
            save_figure(plan.draw(source), path)
        saved.append(path)
    return saved


def _has_scores(source: FigureSource) -> bool:
    return any(trial.scores for trial in source.facts.search_trials)


def _several_trials(source: FigureSource) -> bool:
    """Return whether there are trials, seeds included, to compare."""
    return len(source.facts.trials) > 1


def _searched(source: FigureSource) -> bool:
    """Return whether the search had scored trials to compare."""
    return _has_scores(source) and len(source.facts.search_trials) > 1


def _several_stages(source: FigureSource) -> bool:
    """Return whether the ledger has rows to compare."""
    return len(rows(source.facts.ledger)) > 1


def _has_corrupted(source: FigureSource) -> bool:
    ledger = source.facts.ledger
    return ledger is not None and ledger.robustness is not None and bool(ledger.robustness.rows)


def _has_predictions(source: FigureSource) -> bool:
    return source.facts.test_labels is not None and bool(source.predictions)


def _has_student(source: FigureSource) -> bool:
    return _has_predictions(source) and student_stage(source.facts) is not None


def _training_curves(source: FigureSource) -> Figure:
    facts = source.facts
    assert facts.best is not None
    val = None if facts.val_labels is None else len(facts.val_labels)
    return training_curves_figure(facts.best, facts.seed_trials, facts.spec.rungs, val=val)


def _importance(source: FigureSource) -> Figure:
    assert source.facts.importances is not None
    return importance_figure(source.facts.importances)


def _trial_costs(source: FigureSource) -> Figure:
    facts = source.facts
    assert facts.holdout_labels is not None
    selection = facts.selection
    several = selection is not None and len(selection.members) > 1
    holdout = HoldoutAccuracy(
        hits=facts.holdout_hits,
        images=len(facts.holdout_labels),
        members=facts.weights,
        ensemble=selection.metrics.holdout.accuracy if selection and several else None,
    )
    return trial_costs_figure(facts.trials, holdout)


def _costed(source: FigureSource) -> list[FrontPoint]:
    """Return the trials and ensembles whose size and latency are known."""
    selection = source.facts.selection
    return [] if selection is None else [p for p in selection.front if p.efficient is not None]


def _front(source: FigureSource) -> Figure:
    gates = source.facts.spec.gates
    return front_figure(
        _costed(source), max_latency_ms=gates.max_latency_ms, max_bytes=gates.max_bytes
    )


def _student_classes(source: FigureSource) -> Figure:
    stage = student_stage(source.facts)
    assert stage is not None
    return student_classes_figure(student_differences(source.facts), stage, source.names)


def _reliability(source: FigureSource) -> Figure:
    stages = {
        stage: ScaledPredictions(
            after=values, before=before_temperature(values, temperature_of(source.facts, stage))
        )
        for stage, values in source.predictions.items()
    }
    return reliability_figure(stages, source.labels)


def _confused(source: FigureSource) -> Figure:
    explanations = source.explanations
    assert explanations.confused is not None
    return confused_figure(explanations.confused, explanations.pairs, source.names)


def _heat_maps(source: FigureSource) -> Figure:
    explanations = source.explanations
    assert explanations.examples is not None
    return heat_map_figure(explanations.examples, explanations.heat_maps, source.names)


def _attention(source: FigureSource) -> AttentionWeights:
    assert source.explanations.attention is not None
    return source.explanations.attention


FIGURES: Mapping[str, FigurePlan] = {
    "ledger": FigurePlan(ready=_several_stages, draw=lambda source: ledger_figure(source.ledger)),
    "cost": FigurePlan(ready=_several_stages, draw=lambda source: cost_figure(source.ledger)),
    "robustness": FigurePlan(
        ready=_has_corrupted, draw=lambda source: robustness_figure(source.ledger)
    ),
    "training_curves": FigurePlan(
        ready=lambda source: source.facts.best is not None, draw=_training_curves
    ),
    "learning_curves": FigurePlan(
        ready=lambda source: _has_scores(source) and _several_trials(source),
        draw=lambda source: learning_curves_figure(source.facts.trials, source.facts.spec.rungs),
    ),
    "sweep": FigurePlan(
        ready=_searched,
        draw=lambda source: sweep_figure(source.facts.trials, source.facts.spec.rungs),
    ),
    "hyperparameters": FigurePlan(
        ready=lambda source: _searched(source) and bool(source.facts.space.parameters),
        draw=lambda source: hyperparameters_figure(
            source.facts.trials, source.facts.space, source.facts.spec.rungs
        ),
    ),
    "importance": FigurePlan(
        ready=lambda source: source.facts.importances is not None, draw=_importance
    ),
    "trial_costs": FigurePlan(
        ready=lambda source: bool(source.facts.holdout_hits) and _several_trials(source),
        draw=_trial_costs,
    ),
    "front": FigurePlan(ready=lambda source: len(_costed(source)) > 1, draw=_front),
    "disagreement": FigurePlan(
        ready=lambda source: len(source.facts.member_log_probs) > 1,
        draw=lambda source: disagreement_figure(
            source.facts.member_log_probs, source.facts.weights, source.facts.holdout_labels
        ),
    ),
    "per_class": FigurePlan(
        ready=_has_predictions,
        draw=lambda source: class_accuracy_figure(source.predictions, source.labels, source.names),
    ),
    "confusion": FigurePlan(
        ready=_has_predictions,
        draw=lambda source: confusion_figure(source.predictions, source.labels, source.names),
    ),
    "student_classes": FigurePlan(ready=_has_student, draw=_student_classes),
    "reliability": FigurePlan(ready=_has_predictions, draw=_reliability),
    "confused": FigurePlan(
        ready=lambda source: (
            source.explanations.confused is not None and bool(source.explanations.pairs)
        ),
        draw=_confused,
    ),
    "explained": FigurePlan(
        ready=lambda source: (
            source.explanations.examples is not None
            and bool(source.explanations.heat_maps.columns())
        ),
        draw=_heat_maps,
    ),
    "attention": FigurePlan(
        ready=lambda source: source.explanations.attention is not None,
        draw=lambda source: channel_weights_figure(_attention(source), source.names),
    ),
    "attention_places": FigurePlan(
        ready=lambda source: (
            source.explanations.attention is not None and bool(_attention(source).shown_layers)
        ),
        draw=lambda source: spatial_weights_figure(_attention(source)),
    ),
    "class_sizes": FigurePlan(
        ready=lambda source: bool(source.facts.data.counts),
        draw=lambda source: class_sizes_figure(source.facts.data, source.names),
    ),
    "contact_sheet": FigurePlan(
        ready=lambda source: source.facts.data.sheet is not None,
        draw=lambda source: contact_sheet_figure(source.facts.data, source.names),
    ),
}
"""The figures by file name, in the order of the report."""
