"""Every figure of a run, drawn and saved as PNG.

Axes: N examples, K classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.class_figures import confusion, per_class, reliability
from analysis.facts import RunFacts
from analysis.fonts import Lettering, lettering
from analysis.result_figures import cost_figure, disagreement, ledger_figure
from analysis.space_figures import hyperparameters
from analysis.style import DPI, drawing
from analysis.sweep_figures import learning_curves, sweep_overview
from trainables.metrics import apply_temperature

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
            figure = plan.draw(facts, letters)
            FigureCanvasAgg(figure)
            figure.savefig(path, dpi=DPI, metadata={"Software": None})
        saved.append(path)
    return saved


def main_stages(facts: RunFacts) -> list[str]:
    """The stages shown side by side: the ensemble and the student, as far as they exist."""
    student = next((s for s in ("student_int8", "student_fp32") if s in facts.test_log_probs), None)
    wanted = ["ensemble" if "ensemble" in facts.test_log_probs else "best_single", student]
    return [stage for stage in wanted if stage and stage in facts.test_log_probs]


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


def _has_predictions(facts: RunFacts) -> bool:
    return facts.test_labels is not None and bool(main_stages(facts))


def _has_rows(facts: RunFacts) -> bool:
    return bool(facts.ledger and facts.ledger.get("rows"))


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
    members = (facts.selection or {}).get("members", [])
    weights = {str(member["name"]): float(member["weight"]) for member in members}
    return disagreement(facts.member_log_probs, weights, facts.holdout_labels)


PLANS: Mapping[str, _Plan] = {
    "ledger": _Plan(ready=_has_rows, draw=lambda facts, _: ledger_figure(facts.ledger or {})),
    "cost": _Plan(ready=_has_rows, draw=lambda facts, _: cost_figure(facts.ledger or {})),
    "learning_curves": _Plan(
        ready=_has_scores, draw=lambda facts, _: learning_curves(facts.trials, facts.spec.rungs)
    ),
    "sweep": _Plan(
        ready=_has_scores, draw=lambda facts, _: sweep_overview(facts.trials, facts.spec.rungs)
    ),
    "hyperparameters": _Plan(
        ready=lambda facts: _has_scores(facts) and bool(facts.space.parameters),
        draw=lambda facts, _: hyperparameters(facts.trials, facts.space, facts.spec.rungs),
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
    "reliability": _Plan(ready=_has_predictions, draw=_reliability),
}
"""The figures by file name, in the order of the report."""
