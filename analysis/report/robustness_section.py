"""The section on images unlike those of training, and on prediction sets."""

from analysis.facts.run_facts import RunFacts
from analysis.figures.classes import MOST_NAMED
from analysis.figures.fonts import Lettering
from analysis.report.blocks import Block, Figure, Section, section, table, text, verdict_cell
from analysis.text.cells import difference_cells
from analysis.text.labels import stage_label
from analysis.text.ledger import decimals_for
from analysis.text.robustness import (
    FAMILIES,
    conditions,
    corrupted_cells,
    coverage_cells,
    main_stages,
    other_data_cells,
    released_coverage,
)
from common.formats import DASH, count, percent, percent_range, plural
from ensemble.ledger.ledger import Ledger


def robustness_section(facts: RunFacts, letters: Lettering) -> Section | None:
    """Report corrupted images, other data and prediction sets; None where none was measured."""
    ledger = facts.ledger
    if ledger is None or (ledger.robustness is None and not ledger.conformal):
        return None
    images = ledger.robustness.images if ledger.robustness else 0
    return section(
        "Robustness",
        text(conditions(ledger)),
        _accuracies(ledger),
        _losses(ledger),
        Figure(
            name="robustness",
            caption="Left: accuracy by family of corruptions, with Wilson's 95% interval. Right: "
            "paired differences in accuracy on all corrupted images, with 95% intervals; hollow "
            f"marks: the interval contains zero. n = {plural(images, 'test image')}.",
        ),
        _differences(ledger),
        _other_data(ledger),
        _sets(ledger, letters),
        _classes(ledger, letters),
    )


def _accuracies(ledger: Ledger) -> Block | None:
    return table(
        ("stage", *FAMILIES, "NLL", "ECE"),
        [
            (
                cells.stage,
                *(cells.accuracy.get(family, DASH) for family in FAMILIES),
                cells.nll["all"],
                cells.ece["all"],
            )
            for cells in corrupted_cells(ledger)
        ],
        "lrrrrrrrr",
        caption="Accuracy in % by family of corruptions; NLL and ECE on all corrupted images. "
        "Clean: the same images before they were corrupted.",
    )


def _losses(ledger: Ledger) -> Block | None:
    return table(
        ("stage", "metric", *FAMILIES),
        [
            (cells.stage, metric, *(values.get(family, DASH) for family in FAMILIES))
            for cells in corrupted_cells(ledger, main_stages(ledger))
            for metric, values in (("NLL", cells.nll), ("ECE", cells.ece))
        ],
        "llrrrrrr",
        caption="NLL and ECE by family. The temperatures are those of clean holdout images.",
    )


def _differences(ledger: Ledger) -> Block | None:
    if ledger.robustness is None:
        return None
    decimals = decimals_for(ledger.robustness.images)
    return table(
        ("a − b, corrupted images", "metric", "difference", "95% interval", "a is"),
        [
            (f"{item.a} − {item.b}", item.metric, item.value, item.interval,
             verdict_cell(item.verdict))
            for item in difference_cells(ledger.robustness.differences, decimals)
        ],
        "llrrl",
        caption="Paired differences on all corrupted images.",
    )  # fmt: skip


def _other_data(ledger: Ledger) -> Block | None:
    return table(
        ("stage", "against", "AUROC", "95% interval"),
        [
            (cells.stage, cells.data, cells.auroc, cells.interval)
            for cells in other_data_cells(ledger)
        ],
        "llrr",
        caption="How well the largest probability tells test images from those of another data "
        "set: 0.5 is chance, 1 is perfect. DeLong's interval.",
    )


def _sets(ledger: Ledger, letters: Lettering) -> Block | None:
    rows = coverage_cells(ledger, letters.names)
    if not rows:
        return None
    level = percent(ledger.conformal[0].level, 0)
    return table(
        ("stage", "threshold", "coverage", "95% interval", "classes", "one class", "lowest class"),
        [
            (cells.stage, cells.threshold, cells.coverage, cells.interval, cells.mean_size,
             cells.single, cells.lowest)
            for cells in rows
        ],
        "lrrrrrl",
        caption="Prediction sets: every class whose probability is at least the threshold, and the "
        "most probable class. The threshold was fitted to holdout so that a set holds the true "
        f"class in {level} of images, for all classes together. Coverage is the share of test "
        "images for which it does, in %; classes: mean size of a set; one class: share of such "
        "sets, in %.",
    )  # fmt: skip


def _classes(ledger: Ledger, letters: Lettering) -> Block | None:
    """Show the coverage of every class, with few enough classes; ledger.json has it for all."""
    row = released_coverage(ledger)
    if row is None or len(row.by_class) > MOST_NAMED:
        return None
    return table(
        ("class", "images", "coverage", "95% interval"),
        [
            (name, count(item.images), percent(item.coverage, 1, sign=False),
             percent_range(item.interval, 1))
            for name, item in zip(letters.names, row.by_class, strict=False)
            if item.images
        ],
        "lrrr",
        caption=f"Prediction sets of the {stage_label(row.stage)} by class: the share of its test "
        "images whose set holds it, in %. Coverage is not guaranteed for any single class.",
    )  # fmt: skip
