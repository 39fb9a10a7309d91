"""The report's sections on single predictions: calibration and classes.

Axes: N examples, K classes.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from analysis.facts.predictions import main_stages, temperature_of
from analysis.facts.run_facts import RunFacts
from analysis.figures.calibration import BINS
from analysis.figures.classes import MATRIX_CLASSES, MOST_NAMED
from analysis.figures.fonts import Lettering
from analysis.report.blocks import Block, Cell, figure, section, table, text
from analysis.text.wording import accuracy_text, decimals, label, rows
from common.formats import DASH, count, fixed, plural
from common.statistics.intervals import proportion_interval

Drawn = Collection[str]


def calibration_section(facts: RunFacts, drawn: Drawn) -> Block | None:
    """Whether a confidence of 90% is right in 90% of cases."""
    found = rows(facts.ledger or {})
    if not found:
        return None
    lines: list[list[Cell]] = [
        [
            label(row["stage"]),
            fixed(temperature_of(facts, row["stage"]), 3),
            fixed(row.get("ece"), 4),
            fixed(row.get("ece_null"), 4),
            _calibrated(row),
        ]
        for row in found
    ]
    return section(
        "Calibration",
        table(
            ("stage", "temperature", "ECE", "of a perfect model", "reading"), lines, "lrrrl",
            caption="A temperature above 1 had to soften too bold answers, one below 1 to sharpen "
            "too timid ones.",
        ),
        figure("reliability", "Confidence against accuracy on test before and after the "
               f"temperature, in {BINS} bins of equal width with Wilson's 95% intervals; below, "
               f"how many of {_images(facts)} fall in each.", drawn=drawn),
    )  # fmt: skip


def classes_section(facts: RunFacts, letters: Lettering, drawn: Drawn) -> Block | None:
    """Which classes are hard, and what they are taken for."""
    if facts.test_labels is None or not main_stages(facts):
        return None
    renamed = (
        f"{plural(letters.renamed, 'name')} cannot be shown in the fonts at hand: their numbers "
        "stand for them, and the names are in student/card.json."
        if letters.renamed
        else ""
    )
    return section(
        "Classes",
        text(*(_worst(facts, letters, stage) for stage in main_stages(facts)), renamed),
        figure("per_class", "Accuracy of each class on test, worst first, with Wilson's 95% "
               f"interval for each by itself; n = {_images(facts)} in all, of a class in "
               f"brackets.{_of_many(letters)}", drawn=drawn),
        figure(
            "confusion",
            f"{_confusion_caption(letters)} Counts of {_images(facts)}, without intervals.",
            drawn=drawn,
        ),
    )  # fmt: skip


def _images(facts: RunFacts) -> str:
    return plural(0 if facts.test_labels is None else len(facts.test_labels), "image")


def _of_many(letters: Lettering) -> str:
    if len(letters.names) <= MOST_NAMED:
        return ""
    return f" The worst of {count(len(letters.names))} classes are named, the curve shows all."


def _confusion_caption(letters: Lettering) -> str:
    if len(letters.names) > MATRIX_CLASSES:
        return "What is taken for what on test, the commonest confusions of all stages first."
    return "What is taken for what on test; the shades leave out what is right."


def _calibrated(row: Mapping[str, Any]) -> str:
    ece, null = row.get("ece"), row.get("ece_null")
    if ece is None or null is None:
        return DASH
    if ece <= 1.5 * null:
        return "as of a calibrated model"
    return f"{fixed(ece / null, 1)} times a calibrated model's"


def _worst(facts: RunFacts, letters: Lettering, stage: str) -> str:
    labels, log_probs = facts.test_labels, facts.test_log_probs[stage]
    assert labels is not None
    counts = np.bincount(labels, minlength=len(letters.names))
    hits = np.bincount(labels[log_probs.argmax(axis=1) == labels], minlength=len(letters.names))
    share = np.where(counts > 0, hits / np.maximum(counts, 1), np.inf)
    worst = int(share.argmin())
    interval = proportion_interval(int(hits[worst]), int(counts[worst]))
    row = {"accuracy": share[worst], "accuracy_interval": [interval.low, interval.high]}
    digits = decimals(facts.ledger or {})
    return (
        f"The {label(stage)} is weakest on “{letters.names[worst]}”: "
        f"{accuracy_text(row, min(digits, 1))} of {plural(int(counts[worst]), 'image')}."
    )
