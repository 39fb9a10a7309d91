"""Format the ledger's figures on corrupted images, on other data, and of prediction sets.

The terminal and the report lay out the same cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.text.labels import stage_label
from analysis.text.ledger import decimals_for, decimals_on_test
from common.formats import DASH, fixed, percent, percent_range, plural
from ensemble.ledger.ledger import Ledger
from ensemble.ledger.predictions import STAGES
from ensemble.ledger.robustness import CorruptedRow, CoverageRow

FAMILIES = ("clean", "noise", "blur", "weather", "digital", "all")
"""Columns, in the order of the tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptedCells:
    """One stage on corrupted images; each mapping is by family, accuracies in percent."""

    stage: str
    accuracy: Mapping[str, str]
    nll: Mapping[str, str]
    ece: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherDataCells:
    """One stage's AUROC against another data set."""

    stage: str
    data: str
    auroc: str
    interval: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageCells:
    """One stage's prediction sets; shares in percent."""

    stage: str
    threshold: str
    coverage: str
    interval: str
    mean_size: str
    single: str
    """Share of sets with one class."""
    lowest: str
    """The class that is covered least, with its interval; a dash without test images."""


def main_stages(ledger: Ledger) -> tuple[str, ...]:
    """Return the best single trial, the ensemble and the file that ships, as far as measured."""
    wanted = {"best_single", "ensemble", ledger.released}
    return tuple(stage for stage in STAGES if stage in wanted & _measured(ledger))


def corrupted_cells(ledger: Ledger, stages: Sequence[str] = STAGES) -> tuple[CorruptedCells, ...]:
    """Format the rows on corrupted images."""
    robustness = ledger.robustness
    if robustness is None:
        return ()
    decimals = decimals_for(robustness.images)

    def row_of(stage: str) -> Mapping[str, CorruptedRow]:
        return {row.family: row for row in robustness.rows if row.stage == stage}

    return tuple(
        CorruptedCells(
            stage=stage_label(stage),
            accuracy={
                family: percent(row.accuracy, decimals, sign=False)
                for family, row in row_of(stage).items()
            },
            nll={family: fixed(row.nll, 3) for family, row in row_of(stage).items()},
            ece={family: fixed(row.ece, 3) for family, row in row_of(stage).items()},
        )
        for stage in stages
        if row_of(stage)
    )


def other_data_cells(ledger: Ledger) -> tuple[OtherDataCells, ...]:
    """Format the AUROCs against other data sets."""
    if ledger.robustness is None:
        return ()
    return tuple(
        OtherDataCells(
            stage=stage_label(row.stage),
            data=f"{row.data} ({plural(row.images, 'image')})",
            auroc=fixed(row.auroc, 3),
            interval=f"{fixed(row.interval[0], 3)}–{fixed(row.interval[1], 3)}",
        )
        for row in ledger.robustness.other_data
    )


def coverage_cells(ledger: Ledger, class_names: Sequence[str]) -> tuple[CoverageCells, ...]:
    """Format the prediction sets; `class_names` are in the order of the classes."""
    decimals = decimals_on_test(ledger)
    return tuple(
        CoverageCells(
            stage=stage_label(row.stage),
            threshold=fixed(row.threshold, 3),
            coverage=percent(row.coverage, decimals, sign=False),
            interval=percent_range(row.interval, decimals),
            mean_size=fixed(row.mean_size, 2),
            single=percent(row.single, 1, sign=False),
            lowest=_lowest(row, class_names),
        )
        for row in ledger.conformal
    )


def released_coverage(ledger: Ledger) -> CoverageRow | None:
    """Return the prediction sets of the file that ships; else those of the last stage."""
    found = [row for row in ledger.conformal if row.stage == ledger.released]
    return next(iter(found or ledger.conformal[-1:]), None)


def conditions(ledger: Ledger) -> str:
    """Say on how many images corruptions were measured, or why they were not."""
    robustness = ledger.robustness
    if robustness is None:
        return ""
    if robustness.left_out:
        return f"Nothing was measured on corrupted images: {robustness.left_out}."
    gate = (
        f"the release gate was decided on {plural(robustness.holdout_images, 'other image')} of "
        "holdout, corrupted in the same way"
        if robustness.holdout_images
        else "no release gate was decided on corrupted images"
    )
    return (
        f"{plural(robustness.images, 'test image')}, evenly spaced within each class, were "
        f"corrupted, each by one of 12 corruptions at one of 5 severities; {gate}."
    )


def _measured(ledger: Ledger) -> set[str]:
    return {row.stage for row in ledger.robustness.rows} if ledger.robustness else set()


def _lowest(row: CoverageRow, class_names: Sequence[str]) -> str:
    found = [(item, label) for label, item in enumerate(row.by_class) if item.images]
    if not found:
        return DASH
    item, label = min(found, key=lambda pair: pair[0].coverage)
    name = class_names[label] if label < len(class_names) else str(label)
    return f"{name}: {percent(item.coverage, 1, sign=False)} ({percent_range(item.interval, 1)})"
