"""Sections of a model card on corrupted images, other data and prediction sets, in Markdown.

All figures are the ledger's, of one stage on test; without them there is no such section.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.formats import fixed, percent, percent_range, plural
from common.printable import markdown_text
from ensemble.ledger.ledger import Ledger
from ensemble.ledger.robustness import ALL, CLEAN, CoverageRow

FAMILIES = {
    CLEAN: "the same images, not corrupted",
    "noise": "noise",
    "blur": "blur",
    "weather": "weather",
    "digital": "digital (contrast, pixels, JPEG)",
    ALL: "all corruptions",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of a card: its title and its Markdown."""

    title: str
    text: str


def corrupted_section(ledger: Ledger, stage: str) -> Section | None:
    """Report accuracy by family of corruptions, and the scores against other data."""
    robustness = ledger.robustness
    if robustness is None or robustness.row(stage) is None:
        return None
    rows = []
    for family, name in FAMILIES.items():
        row = robustness.row(stage, family)
        if row is not None:
            accuracy = (
                f"{percent(row.accuracy)} ({percent_range(row.accuracy_interval, sign=True)})"
            )
            rows.append((name, f"{row.images:,}", accuracy, fixed(row.nll), fixed(row.ece)))
    parts = [
        f"{plural(robustness.images, 'test image')}, each changed by one of 12 corruptions after "
        "Hendrycks & Dietterich (2019) at one of 5 severities. Intervals are 95%, Wilson's.",
        markdown_table(("images", "number", "accuracy", "NLL", "ECE"), "lrrrr", rows),
    ]
    for other in robustness.other_data:
        if other.stage == stage:
            low, high = (fixed(end) for end in other.interval)
            parts.append(
                "The largest probability separates test images from "
                f"{plural(other.images, 'image')} of another data set, "
                f"{markdown_text(other.data)}, with AUROC {fixed(other.auroc)} ({low}–{high}; "
                "chance is 0.5)."
            )
    return Section(title="Corrupted images and other data", text="\n\n".join(parts))


def sets_section(ledger: Ledger, stage: str, class_names: Sequence[str]) -> Section | None:
    """Report the coverage of the prediction sets, in all and by class."""
    row = next((row for row in ledger.conformal if row.stage == stage), None)
    if row is None:
        return None
    head = (
        f"A set holds every class with a probability of at least {fixed(row.threshold)}, and the "
        "most probable class. The threshold was fitted to "
        f"{plural(row.calibration_images, 'image')} of holdout to cover the true class of "
        f"{100 * row.level:g}% of images. On {plural(row.images, 'test image')} the coverage was "
        f"{percent(row.coverage)} ({percent_range(row.interval, sign=True)}), with "
        f"{fixed(row.mean_size, 2)} classes a set; {percent(row.single)} of sets have one class. "
        "Coverage is not guaranteed for any single class."
    )
    return Section(title="Prediction sets", text=f"{head}\n\n{_coverage(row, class_names)}")


def markdown_table(header: Sequence[str], align: str, rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; `align` has an `l` or `r` for every column."""
    marks = ("---:" if letter == "r" else "---" for letter in align)
    lines = [header, tuple(marks), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _coverage(row: CoverageRow, class_names: Sequence[str]) -> str:
    rows = [
        (
            markdown_text(name),
            f"{each.images:,}",
            f"{percent(each.coverage)} ({percent_range(each.interval, sign=True)})"
            if each.images
            else "–",
        )
        for name, each in zip(class_names, row.by_class, strict=True)
    ]
    return markdown_table(("class", "test images", "coverage"), "lrr", rows)
