"""The report's section on the ledger: from facts to blocks.

What a run has not reached is left out, with a sentence that says so.
"""

from collections.abc import Collection, Mapping

from analysis.facts.run_facts import RunFacts
from analysis.report.blocks import Block, Cell, figure, section, table, text, toned
from analysis.report.plan_sections import seeds_note
from analysis.text.cells import ledger_cells
from analysis.text.wording import (
    decimals,
    difference_method,
    difference_value,
    gate_label,
    gate_numbers,
    label,
    metric_label,
    rows,
    verdict,
)
from common.formats import plural

Drawn = Collection[str]


def ledger_section(facts: RunFacts, drawn: Drawn) -> Block:
    """Every stage on test, the paired differences, the gates, the cost."""
    ledger = facts.ledger
    if ledger is None:
        return section(
            "The ledger", text("Not written yet: it compares all stages on test, once each exists.")
        )
    digits = decimals(ledger)
    header = (
        "stage", "accuracy", "95% interval", "bal. acc.", "NLL", "Brier", "ECE (null)",
        "params", "size", "ms", "images/s", "train", "agree",
    )  # fmt: skip
    lines = [_line(ledger_cells(row, digits)) for row in rows(ledger)]
    reads = int(ledger.get("test_reads") or 1)
    return section(
        "The ledger",
        text(
            f"One row a stage, on {_images(facts, 'test')} of test.",
            "Test has been read once, when all choices were frozen."
            if reads == 1
            else f"Test has been read {reads} times.",
            _absent(facts),
            seeds_note(facts),
        ),
        table(
            header, lines, "lrrrrrrrrrrrr",
            caption="Accuracies and agreement with the ensemble in %. ECE (null): what a "
            "perfectly calibrated model would show on as many images. ms: one image on one call; "
            "images/s: in batches. Train: all members together.",
        ),
        _gates(facts),
        figure("ledger", "Left: accuracy of every stage on test, with Wilson's 95% interval. "
               "Middle and right: paired differences a − b with 95% intervals. Hollow: zero lies "
               f"in the interval. n = {_images(facts, 'test')}.", drawn=drawn),
        _differences(facts),
        figure("cost", "What accuracy costs: every stage on test against the size of its weights, "
               "the time of one answer and the time of training. Stages of about the same cost "
               "stand side by side. Bars: Wilson's 95% intervals, "
               f"n = {_images(facts, 'test')}. Upper left is better.", drawn=drawn),
    )  # fmt: skip


def _line(cells: Mapping[str, str]) -> list[str]:
    return [
        *(cells[name] for name in ("stage", "accuracy", "interval", "balanced", "nll", "brier")),
        f"{cells['ece']} ({cells['ece_null']})",
        *(cells[name] for name in ("params", "size", "ms", "rate", "train", "agree")),
    ]


def _differences(facts: RunFacts) -> Block | None:
    ledger = facts.ledger or {}
    lines: list[list[Cell]] = [
        [
            f"{label(item['a'])} − {label(item['b'])}",
            metric_label(item["metric"]),
            *difference_value(item, decimals(ledger)),
            difference_method(item),
            toned(verdict(item)),
        ]
        for item in ledger.get("differences", [])
    ]
    return table(
        ("a − b", "metric", "difference", "95% interval", "method", "a is"), lines, "llrrll",
        caption="Paired differences on test: both answer the same images.",
    )  # fmt: skip


def _gates(facts: RunFacts) -> Block | None:
    gates = (facts.ledger or {}).get("gates", [])
    if not gates and facts.spec.deliver != "student":
        return None
    if not gates:
        return text("No release gate has been decided: there is no int8 student.")
    lines: list[list[Cell]] = [
        [gate_label(gate), *gate_numbers(gate), toned(str(gate["verdict"]))] for gate in gates
    ]
    return table(
        ("gate", "value", "bound", "limit", "verdict"), lines, "lrrrl",
        caption="Release gates of the int8 student, decided on holdout: the one-sided 95% bound "
        "must keep the limit.",
    )  # fmt: skip


def _absent(facts: RunFacts) -> str:
    if facts.spec.deliver == "single":
        return "The run delivers its best single net, so that there is one row."
    found = {str(row["stage"]) for row in rows(facts.ledger or {})}
    sentences = []
    if "seeds_ensemble" not in found:
        sentences.append(
            "There is no seeds ensemble: too few further seeds of the best configuration were "
            "trained, so the comparison at equal compute is missing."
        )
    if facts.spec.deliver == "student" and not found & {"student_fp32", "student_int8"}:
        sentences.append("There is no student yet.")
    return " ".join(sentences)


def _images(facts: RunFacts, split: str) -> str:
    return plural(facts.sizes[split], "image") if split in facts.sizes else "the images"
