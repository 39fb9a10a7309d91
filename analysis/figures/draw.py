"""Every figure of a run, drawn and saved as PNG.

Axes: N examples, K classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.explain.attention import AttentionFacts
from analysis.explain.pictures import confused_pairs
from analysis.facts.run_facts import RunFacts
from analysis.figures.attention_figures import channel_gates, spatial_gates
from analysis.figures.class_figures import confusion, per_class, reliability
from analysis.figures.curve_figures import training_curves, trial_costs
from analysis.figures.fonts import Lettering, lettering
from analysis.figures.picture_figures import class_sizes, contact_sheet
from analysis.figures.result_figures import cost_figure, disagreement, ledger_figure
from analysis.figures.sheet_figures import confused, explained
from analysis.figures.space_figures import hyperparameters, importance_figure
from analysis.figures.student_figures import ClassDifference, class_differences, student_classes
from analysis.figures.style import drawing, save_figure
from analysis.figures.sweep_figures import learning_curves, sweep_overview
from common.statistics.metrics import apply_temperature

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """One figure: whether the run has its data yet, and how it is drawn."""

    ready: Callable[[RunFacts], bool]
    draw: Callable[[RunFacts, Lettering], Figure]


def save_figures(facts: RunFacts, folder: Path) -> list[Path]:
    """Draw every figure that the run has data for into `folder`, as NAME.png.

    Figures of an earlier report that the run has no data for are removed, so that the
    folder never mixes two states of a run. The same facts give the same bytes.
    """
    letters = lettering(facts.class_names)
    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    for name, plan in PLANS.items():
        path = folder / f"{name}.png"
        if not plan.ready(facts):
            path.unlink(missing_ok=True)
            continue
        with drawing(letters.families):
            save_figure(plan.draw(facts, letters), path)
        saved.append(path)
    return saved


def main_stages(facts: RunFacts) -> list[str]:
    """The stages shown side by side: the ensemble and the student, as far as they exist."""
    student = next((s for s in ("student_int8", "student_fp32") if s in facts.test_log_probs), None)
    wanted = ["ensemble" if "ensemble" in facts.test_log_probs else "best_single", student]
    return [stage for stage in wanted if stage and stage in facts.test_log_probs]


def student_stage(facts: RunFacts) -> str | None:
    """The student whose predictions are compared with the ensemble's, where both are there."""
    found = [stage for stage in main_stages(facts) if stage.startswith("student")]
    return found[0] if found and "ensemble" in facts.test_log_probs else None


def student_differences(facts: RunFacts) -> list[ClassDifference]:
    """The student's accuracy on every class of test, less the ensemble's."""
    stage = student_stage(facts)
    assert stage is not None
    return class_differences(
        facts.test_log_probs[stage],
        facts.test_log_probs["ensemble"],
        _labels(facts),
        seed=facts.spec.seed,
    )


def before_temperature(log_probs: Floats, temperature: float | None) -> Floats | None:
    """Undo a temperature T: log_softmax(T·log p) is what stood before it.

    Dividing by T and normalizing loses nothing but a constant a row, so the way back is
    exact up to rounding and the floor of probabilities. None where T is not known.
    """
    return None if temperature is None else apply_temperature(log_probs, 1 / temperature)


def temperature_of(facts: RunFacts, stage: str) -> float | None:
    """The temperature that a stage's predictions on test were divided by, where known."""
    rows = (facts.ledger or {}).get("rows", [])
    row: Mapping[str, Any] = next((row for row in rows if row["stage"] == stage), {})
    if row.get("temperature") is not None:
        return float(row["temperature"])
    chosen = facts.selection or {}
    chosen = chosen if stage == "ensemble" else chosen.get(stage) or {}
    if chosen.get("temperature") is not None:
        return float(chosen["temperature"])
    card = facts.plain_card if stage == "student_plain" else facts.card
    if card is None or not stage.startswith("student"):
        return None
    artifact = card.int8 if stage == "student_int8" else card.fp32
    return artifact.temperature if artifact else None


def _has_scores(facts: RunFacts) -> bool:
    return any(trial.scores for trial in facts.search_trials)


def _several(facts: RunFacts) -> bool:
    """Whether there are trainings to be held against each other."""
    return len(facts.trials) > 1


def _searched(facts: RunFacts) -> bool:
    """Whether the search had more than one try."""
    return len(facts.search_trials) > 1


def _has_predictions(facts: RunFacts) -> bool:
    return facts.test_labels is not None and bool(main_stages(facts))


def _compares(facts: RunFacts) -> bool:
    """Whether the ledger has rows to be held against each other."""
    return len((facts.ledger or {}).get("rows", [])) > 1


def _shown(facts: RunFacts) -> dict[str, Floats]:
    return {stage: facts.test_log_probs[stage] for stage in main_stages(facts)}


def _labels(facts: RunFacts) -> NDArray[np.integer[Any]]:
    assert facts.test_labels is not None
    return facts.test_labels


def _reliability(facts: RunFacts, _: Lettering) -> Figure:
    panels = {
        stage: (values, before_temperature(values, temperature_of(facts, stage)))
        for stage, values in _shown(facts).items()
    }
    return reliability(panels, _labels(facts))


def _disagreement(facts: RunFacts, _: Lettering) -> Figure:
    return disagreement(facts.member_log_probs, facts.weights, facts.holdout_labels)


def _training_curves(facts: RunFacts, _: Lettering) -> Figure:
    assert facts.best is not None
    val = None if facts.val_labels is None else len(facts.val_labels)
    return training_curves(facts.best, facts.seed_trials, facts.spec.rungs, val=val)


def _trial_costs(facts: RunFacts, _: Lettering) -> Figure:
    assert facts.holdout_labels is not None
    held_out = ((facts.selection or {}).get("metrics") or {}).get("holdout") or {}
    return trial_costs(
        facts.trials,
        facts.holdout_hits,
        len(facts.holdout_labels),
        members=facts.weights,
        ensemble=held_out.get("accuracy") if len(facts.weights) > 1 else None,
    )


def _explained(facts: RunFacts, letters: Lettering) -> Figure:
    assert facts.data.chosen is not None
    return explained(facts.data.chosen, facts.data.maps, letters.names)


def _confused(facts: RunFacts, letters: Lettering) -> Figure:
    assert facts.data.confused is not None
    return confused(facts.data.confused, confused_pairs(facts), letters.names)


def _attention(facts: RunFacts) -> AttentionFacts:
    assert facts.data.attention is not None
    return facts.data.attention


def _student_classes(facts: RunFacts, letters: Lettering) -> Figure:
    stage = student_stage(facts)
    assert stage is not None
    return student_classes(student_differences(facts), stage, letters.names)


def _importance(facts: RunFacts, _: Lettering) -> Figure:
    assert facts.importances is not None
    return importance_figure(facts.importances)


PLANS: Mapping[str, _Plan] = {
    "ledger": _Plan(ready=_compares, draw=lambda facts, _: ledger_figure(facts.ledger or {})),
    "cost": _Plan(ready=_compares, draw=lambda facts, _: cost_figure(facts.ledger or {})),
    "training_curves": _Plan(ready=lambda facts: facts.best is not None, draw=_training_curves),
    "learning_curves": _Plan(
        ready=lambda facts: _has_scores(facts) and _several(facts),
        draw=lambda facts, _: learning_curves(facts.trials, facts.spec.rungs),
    ),
    "sweep": _Plan(
        ready=lambda facts: _has_scores(facts) and _searched(facts),
        draw=lambda facts, _: sweep_overview(facts.trials, facts.spec.rungs),
    ),
    "hyperparameters": _Plan(
        ready=lambda facts: (
            _has_scores(facts) and _searched(facts) and bool(facts.space.parameters)
        ),
        draw=lambda facts, _: hyperparameters(facts.trials, facts.space, facts.spec.rungs),
    ),
    "importance": _Plan(ready=lambda facts: facts.importances is not None, draw=_importance),
    "trial_costs": _Plan(
        ready=lambda facts: bool(facts.holdout_hits) and _several(facts), draw=_trial_costs
    ),
    "disagreement": _Plan(ready=lambda facts: len(facts.member_log_probs) > 1, draw=_disagreement),
    "per_class": _Plan(
        ready=_has_predictions,
        draw=lambda facts, letters: per_class(_shown(facts), _labels(facts), letters.names),
    ),
    "confusion": _Plan(
        ready=_has_predictions,
        draw=lambda facts, letters: confusion(_shown(facts), _labels(facts), letters.names),
    ),
    "student_classes": _Plan(
        ready=lambda facts: _has_predictions(facts) and student_stage(facts) is not None,
        draw=_student_classes,
    ),
    "reliability": _Plan(ready=_has_predictions, draw=_reliability),
    "confused": _Plan(
        ready=lambda facts: facts.data.confused is not None and bool(confused_pairs(facts)),
        draw=_confused,
    ),
    "explained": _Plan(
        ready=lambda facts: facts.data.chosen is not None and bool(facts.data.maps.columns()),
        draw=_explained,
    ),
    "attention": _Plan(
        ready=lambda facts: facts.data.attention is not None,
        draw=lambda facts, letters: channel_gates(_attention(facts), letters.names),
    ),
    "attention_places": _Plan(
        ready=lambda facts: facts.data.attention is not None and bool(_attention(facts).shown),
        draw=lambda facts, _: spatial_gates(_attention(facts)),
    ),
    "class_sizes": _Plan(
        ready=lambda facts: bool(facts.data.counts),
        draw=lambda facts, letters: class_sizes(facts.data, letters.names),
    ),
    "contact_sheet": _Plan(
        ready=lambda facts: facts.data.sheet is not None,
        draw=lambda facts, letters: contact_sheet(facts.data, letters.names),
    ),
}
"""The figures by file name, in the order of the report."""
