"""The section on the ledger: every stage on test, paired differences, gates and costs.

If the run has not reached a part, a sentence says so.
"""

from analysis.facts.run_facts import RunFacts
from analysis.report.blocks import Block, Figure, Section, section, table, text, verdict_cell
from analysis.report.forecast_section import unequal_compute_note
from analysis.text.cells import StageCells, difference_cells, gate_cells, stage_cells
from analysis.text.labels import reason_text, stage_label
from analysis.text.ledger import decimals_on_test, rows
from common.formats import percent, plural
from ensemble.deployment.gates import level_of
from ensemble.ledger.ledger import Ledger

HEADER = (
    "stage", "accuracy", "95% interval", "bal. acc.", "NLL", "Brier", "ECE (null)",
    "params", "size", "ms", "images/s", "training", "agree",
)  # fmt: skip


def ledger_section(facts: RunFacts) -> Section:
    """Report every stage on test, the paired differences, the gates and the costs."""
    ledger = facts.ledger
    if ledger is None:
        pending = "Not written yet. The ledger will compare all stages on test."
        return section("The ledger", text(pending))
    reads = ledger.test_reads
    images = _test_images(facts)
    return section(
        "The ledger",
        text(
            f"All stages are compared on {images}.",
            "Test was read once, after all choices were frozen."
            if reads == 1
            else f"Test was read {reads} times.",
            _missing_rows(facts),
            unequal_compute_note(facts),
        ),
        table(
            HEADER,
            [_row(cells) for cells in stage_cells(ledger)],
            "lrrrrrrrrrrrr",
            caption="Accuracies and agreement with the ensemble are in %. ECE (null): the ECE of "
            "a perfectly calibrated model on as many images. ms: latency of one image; images/s: "
            "throughput in batches; training: time of all members together.",
        ),
        _gates(facts, ledger),
        _candidates(ledger),
        Figure(
            name="ledger",
            caption="Left: accuracy of every stage on test, with Wilson's 95% interval. Middle "
            "and right: paired differences a − b with 95% intervals; hollow marks: the interval "
            f"contains zero. n = {images}.",
        ),
        _differences(ledger),
        Figure(
            name="cost",
            caption="Accuracy on test against the size of the weights, the latency of one image "
            "and the training time. Stages of about the same cost are drawn side by side. Bars: "
            f"Wilson's 95% intervals, n = {images}. Upper left is better.",
        ),
    )


def _row(cells: StageCells) -> tuple[str, ...]:
    return (
        cells.stage, cells.accuracy, cells.interval, cells.balanced_accuracy, cells.nll,
        cells.brier, f"{cells.ece} ({cells.ece_null})", cells.params, cells.size,
        cells.latency_ms, cells.images_per_second, cells.training, cells.agreement,
    )  # fmt: skip


def _differences(ledger: Ledger) -> Block | None:
    cells = difference_cells(ledger.differences, decimals_on_test(ledger))
    return table(
        ("a − b", "metric", "difference", "95% interval", "method", "a is"),
        [
            (f"{item.a} − {item.b}", item.metric, item.value, item.interval, item.method,
             verdict_cell(item.verdict))
            for item in cells
        ],
        "llrrll",
        caption="Paired differences: both stages predict the same test images.",
    )  # fmt: skip


def _gates(facts: RunFacts, ledger: Ledger) -> Block | None:
    gates = gate_cells(ledger)
    if not gates:
        undecided = "No release gate was decided: there is no student."
        return text(undecided) if facts.spec.deliver == "student" else None
    level = percent(level_of(ledger.decisions), 0 if ledger.decisions == 1 else 1)
    return table(
        ("file", "gate", "value", "bound", "limit", "verdict"),
        [
            (gate.file, gate.requirement, gate.value, gate.bound, gate.limit,
             verdict_cell(gate.verdict))
            for gate in gates
        ],
        "llrrrl",
        caption="Release gates, decided on holdout: a gate passes if the one-sided "
        f"{level} bound is within the limit.",
    )  # fmt: skip


def _candidates(ledger: Ledger) -> Block | None:
    """Show what became of every file that could have shipped."""
    if not ledger.candidates:
        return None
    return table(
        ("file", "outcome"),
        [(stage_label(item.stage), reason_text(item.outcome)) for item in ledger.candidates],
        "ll",
        caption="The files that could ship. Of a network's two files, int8 ships unless it fails a "
        "precision gate. A student replaces the best single trial if it is more accurate, or "
        "smaller and faster without being less accurate; or, unless it is larger and slower, if "
        "its NLL is lower or only it passes its gates.",
    )


def _missing_rows(facts: RunFacts) -> str:
    if facts.spec.deliver == "single":
        return "The run delivers its best single network, so there is only one row."
    stages = {row.stage for row in rows(facts.ledger)}
    sentences = []
    if "seeds_ensemble" not in stages:
        sentences.append(
            "There is no seed ensemble: fewer seeds of the best configuration finished than the "
            "ensemble has members, so the comparison at equal compute is missing."
        )
    if facts.spec.deliver == "student" and not stages & {"student_fp32", "student_int8"}:
        sentences.append("There is no student yet.")
    return " ".join(sentences)


def _test_images(facts: RunFacts) -> str:
    return plural(facts.sizes["test"], "test image") if "test" in facts.sizes else "the test images"
