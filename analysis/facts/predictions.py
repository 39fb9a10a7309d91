"""Facts about test predictions: compared stages, their temperatures, differences by class.

Axes: N examples, K classes. Log-probabilities are float32 [N, K], labels int [N].
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.facts.run_facts import RunFacts
from analysis.text.ledger import shipped_stage
from common.seeds import numpy_generator
from common.statistics.intervals import paired_difference
from common.statistics.metrics import apply_temperature, correct
from ensemble.ledger.predictions import FILES
from ensemble.selection.selection import Baseline, BestSingle, Selection

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

_STUDENTS = ("student_int8", "student_fp32")

LEVEL = 0.95
"""Confidence that the intervals of all classes hold simultaneously."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassDifference:
    """One class's accuracy on test: the student's minus the ensemble's, on the same images."""

    label: int
    images: int
    value: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """The interval excludes zero."""
        return not self.low <= 0 <= self.high


def main_stages(facts: RunFacts) -> list[str]:
    """Return the stages to show: the ensemble (or best single network) and the file that ships.

    Where nothing ships, the student takes its place.
    """
    available = facts.test_log_probs
    teacher = "ensemble" if "ensemble" in available else "best_single"
    shipped = shipped_stage(facts.ledger) if facts.ledger else None
    stages = [stage for stage in (shipped, *_STUDENTS) if stage and stage in available]
    small = [stage for stage in stages if stage != teacher]
    return [stage for stage in (teacher, *small[:1]) if stage in available]


def student_stage(facts: RunFacts) -> str | None:
    """Return the student that is compared with the ensemble; None unless both have predictions."""
    students = [stage for stage in _STUDENTS if stage in facts.test_log_probs]
    shipped = shipped_stage(facts.ledger) if facts.ledger else None
    students.sort(key=lambda stage: stage != shipped)
    return students[0] if students and "ensemble" in facts.test_log_probs else None


def student_differences(facts: RunFacts) -> list[ClassDifference]:
    """Return the student's accuracy minus the ensemble's for every class; [] without a student."""
    stage = student_stage(facts)
    if stage is None or facts.test_labels is None:
        return []
    predictions = facts.test_log_probs
    return class_differences(
        predictions[stage], predictions["ensemble"], facts.test_labels, seed=facts.spec.seed
    )


def class_differences(
    student: Floats, ensemble: Floats, labels: Ints, *, seed: int
) -> list[ClassDifference]:
    """Compare two sets of predictions class by class, with simultaneous 95% intervals.

    Each paired interval has the level 1 − 0.05/K (Bonferroni). With separate 95% intervals
    for ten classes, four reports in ten would show a difference where there is none.
    """
    present, counts = np.unique(labels, return_counts=True)
    level = 1 - (1 - LEVEL) / len(present)
    # Aim at 20 draws beyond either end; more than 20,000 draws take too long.
    draws = int(np.clip(40 / (1 - level), 2000, 20_000))
    hits = [correct(values, labels) for values in (student, ensemble)]
    differences = []
    for k, images in zip(present.tolist(), counts.tolist(), strict=True):
        members = labels == k
        difference = paired_difference(
            hits[0][members], hits[1][members],
            rng=numpy_generator(seed, "report", "class", str(k)), level=level, draws=draws,
        )  # fmt: skip
        differences.append(
            ClassDifference(
                label=int(k), images=int(images), value=difference.value,
                low=difference.interval.low, high=difference.interval.high,
            )
        )  # fmt: skip
    return differences


def before_temperature(log_probs: Floats, temperature: float | None) -> Floats | None:
    """Undo a temperature T by log_softmax(T·log p); None if T is unknown.

    Exact up to rounding and the floor of probabilities: dividing by T and normalizing loses
    only a constant per row.
    """
    return None if temperature is None else apply_temperature(log_probs, 1 / temperature)


def temperature_of(facts: RunFacts, stage: str) -> float | None:
    """Return the temperature that a stage's test predictions were divided by, if known.

    It is recorded in the selection, or for a student in its card.
    """
    selected = _selected(facts.selection, stage)
    if selected is not None:
        return selected.temperature
    if stage not in FILES:
        return None
    network, precision = FILES[stage]
    cards = {
        "student": facts.card, "student_plain": facts.plain_card, "best_single": facts.single_card
    }  # fmt: skip
    card = cards[network]
    artifact = None if card is None else card.int8 if precision == "int8" else card.fp32
    return artifact.temperature if artifact else None


def _selected(selection: Selection | None, stage: str) -> Selection | BestSingle | Baseline | None:
    """Return the part of a selection that describes a stage."""
    if selection is None:
        return None
    stages: dict[str, Selection | BestSingle | Baseline | None] = {
        "ensemble": selection,
        "best_single": selection.best_single,
        "uniform_top_k": selection.uniform_top_k,
        "seeds_ensemble": selection.seeds_ensemble,
    }
    return stages.get(stage)
