"""The sections on predictions: calibration and accuracy by class.

Axes: N examples, K classes.
"""

import numpy as np

from analysis.facts.predictions import main_stages, temperature_of
from analysis.facts.run_facts import RunFacts
from analysis.figures.calibration import BINS
from analysis.figures.classes import MATRIX_CLASSES, MOST_NAMED
from analysis.figures.fonts import Lettering
from analysis.report.blocks import Figure, Section, section, table, text
from analysis.text.labels import stage_label
from analysis.text.ledger import decimals_on_test, rows
from analysis.text.sentences import accuracy_text
from common.formats import count, fixed, plural
from common.statistics.intervals import proportion_interval
from ensemble.ledger.ledger import Row

CALIBRATED = 1.5
"""Largest ratio of a stage's ECE to a calibrated model's that counts as calibrated."""


def calibration_section(facts: RunFacts) -> Section | None:
    """Report how well confidence matches accuracy; None without a ledger."""
    ledger_rows = rows(facts.ledger)
    if not ledger_rows:
        return None
    return section(
        "Calibration",
        table(
            ("stage", "temperature", "ECE", "ECE (null)", "reading"),
            [
                (stage_label(row.stage), fixed(temperature_of(facts, row.stage), 3),
                 fixed(row.ece, 4), fixed(row.ece_null, 4), _reading(row))
                for row in ledger_rows
            ],
            "lrrrl",
            caption="A temperature above 1 corrects an overconfident model, one below 1 an "
            "underconfident one. ECE (null): the ECE of a perfectly calibrated model on as many "
            "images.",
        ),
        Figure(
            name="reliability",
            caption="Reliability on test before and after the temperature: accuracy against "
            f"confidence in {BINS} bins of equal width with Wilson's 95% intervals, and below, the "
            f"number of images in each bin (n = {_test_images(facts)}).",
        ),
    )  # fmt: skip


def classes_section(facts: RunFacts, letters: Lettering) -> Section | None:
    """Report accuracy by class and the confusion matrices; None without test predictions."""
    if facts.test_labels is None or not main_stages(facts):
        return None
    renamed = (
        f"{plural(letters.renamed, 'name')} cannot be shown in the available fonts and are "
        "replaced by their numbers; the names are in student/card.json."
        if letters.renamed
        else ""
    )
    return section(
        "Classes",
        text(*(_weakest_class(facts, letters, stage) for stage in main_stages(facts)), renamed),
        Figure(
            name="per_class",
            caption="Accuracy of each class on test, lowest first, with Wilson's 95% interval for "
            f"each class separately; in brackets: its images, {_test_images(facts)} in all."
            f"{_of_many(letters)}",
        ),
        Figure(
            name="confusion",
            caption=f"{_confusion_caption(letters)} Counts of {_test_images(facts)}, without "
            "intervals.",
        ),
    )


def _test_images(facts: RunFacts) -> str:
    return plural(0 if facts.test_labels is None else len(facts.test_labels), "image")


def _of_many(letters: Lettering) -> str:
    if len(letters.names) <= MOST_NAMED:
        return ""
    return (
        f" Only the lowest of {count(len(letters.names))} classes are named; the curve shows all."
    )


def _confusion_caption(letters: Lettering) -> str:
    if len(letters.names) > MATRIX_CLASSES:
        return "Most confused classes on test, over all stages, the most frequent confusion first."
    return "Confusion matrices on test; the shading ignores correct predictions."


def _reading(row: Row) -> str:
    if row.ece <= CALIBRATED * row.ece_null:
        return "like a calibrated model"
    return f"{fixed(row.ece / row.ece_null, 1)} times that of a calibrated model"


def _weakest_class(facts: RunFacts, letters: Lettering, stage: str) -> str:
    labels, log_probs = facts.test_labels, facts.test_log_probs[stage]
    assert labels is not None
    counts = np.bincount(labels, minlength=len(letters.names))
    hits = np.bincount(labels[log_probs.argmax(axis=1) == labels], minlength=len(letters.names))
    share = np.where(counts > 0, hits / np.maximum(counts, 1), np.inf)
    weakest = int(share.argmin())
    interval = proportion_interval(int(hits[weakest]), int(counts[weakest]))
    decimals = min(decimals_on_test(facts.ledger), 1)
    limits = (interval.low, interval.high)
    accuracy = accuracy_text(float(share[weakest]), limits, decimals)
    return (
        f"The weakest class of the {stage_label(stage)} is “{letters.names[weakest]}”, with "
        f"{accuracy} of {plural(int(counts[weakest]), 'image')} correct."
    )
