"""The ledger, its differences and gates, and the ensemble, as tables of 80 columns.

Cells with two values stack them; the header names both.
"""

from rich.table import Table
from rich.text import Text

from analysis.terminal.layout import DIM, name_text, stacked, titled_table, verdict_text
from analysis.text.cells import DifferenceCells, difference_cells, gate_cells, stage_cells
from analysis.text.labels import NOT_DISTINGUISHABLE, reason_text, stage_label
from analysis.text.ledger import decimals_on_test, sizes
from analysis.text.robustness import (
    FAMILIES,
    conditions,
    corrupted_cells,
    main_stages,
    released_coverage,
)
from common.formats import (
    DASH,
    fixed,
    percent,
    percent_range,
    plural,
    short_duration,
    signed,
    two_digits,
)
from ensemble.ledger.ledger import Ledger
from ensemble.selection.selection import Selection

DETAILS = {
    ("ensemble", "uniform_top_k"),
    ("weighted_vote", "soft_vote"),
    ("soft_vote", "hard_vote"),
    ("student_fp32", "best_single"),
    ("best_single_int8", "best_single"),
}
"""Pairs of stages whose differences are left to the report."""

BAR_CELLS = 30
"""Length of the bar of the largest weight, in characters."""


def ledger_table(ledger: Ledger) -> Table:
    """Return the ledger on test, one row per stage."""
    table = titled_table(_title(ledger))
    table.add_column("")
    for header in (
        "accuracy\n95% int.", "bal.\nacc.", "NLL", "Brier", "ECE\nnull", "params\nsize",
        "ms\nimg/s", "train", "agree",
    ):  # fmt: skip
        table.add_column(header, justify="right", no_wrap=True)
    for cells in stage_cells(ledger, time_format=short_duration):
        table.add_row(
            Text(cells.stage.replace(" ", "\n", 1)),
            stacked(cells.accuracy, cells.interval),
            cells.balanced_accuracy,
            cells.nll,
            cells.brier,
            stacked(cells.ece, cells.ece_null),
            stacked(cells.params, cells.size.replace(" ", "")),
            stacked(cells.latency_ms, cells.images_per_second),
            cells.training,
            cells.agreement,
        )
    table.caption = (
        "accuracies and agreement with the ensemble in %; null: the ECE of a perfectly "
        "calibrated model; ms: latency of one image; img/s: throughput in batches"
    )
    return table


def differences_table(ledger: Ledger) -> Table:
    """Return the paired differences, one row per pair, with interval and verdict by metric."""
    table = titled_table("Paired differences on test, 95% intervals")
    table.add_column("a − b")
    table.add_column("")
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("interval", justify="right", no_wrap=True)
    table.add_column("a is")
    for (a, b), cells in _by_pair(ledger).items():
        table.add_row(
            Text(f"{a}\n− {b}"),
            Text("\n".join(item.metric for item in cells)),
            "\n".join(item.value for item in cells),
            "\n".join(item.interval for item in cells),
            Text("\n").join(_short_verdict(item.verdict) for item in cells),
        )
    table.caption = f"{DASH} not distinguishable; ledger.json and the report have all pairs"
    return table


def _short_verdict(verdict: str) -> Text:
    """Return a verdict in one line: a dash for the longest, which would wrap."""
    return Text(DASH, style=DIM) if verdict == NOT_DISTINGUISHABLE else verdict_text(verdict)


def gates_table(ledger: Ledger) -> Table:
    """Return the release gates: value, one-sided bound, limit and verdict."""
    judged = {gate.stage for gate in ledger.gates}
    several = len(judged) > 1
    of = "" if several else "".join(f" of the {stage_label(stage)}" for stage in judged)
    table = titled_table(f"Release gates{of}, decided on holdout")
    table.add_column("gate")
    for header in ("value", "bound", "limit"):
        table.add_column(header, justify="right")
    table.add_column("verdict")
    gates = gate_cells(ledger)
    for gate in gates:
        name = f"{gate.file}: {gate.requirement}" if several else gate.requirement
        verdict = verdict_text(gate.verdict)
        table.add_row(Text(name), gate.value, gate.bound, gate.limit, verdict)
    if not gates:
        table.caption = "no file has been judged yet"
    elif ledger.candidates:
        ships = stage_label(ledger.released) + " ships" if not several else "nothing ships"
        table.caption = f"{ships}: {reason_text(ledger.released_because)}"
    return table


def robustness_table(ledger: Ledger) -> Table | None:
    """Return accuracy on corrupted images, and below it other data and prediction sets.

    None for a ledger without any of them.
    """
    cells = corrupted_cells(ledger, main_stages(ledger))
    notes = [*_other_data(ledger), *_sets(ledger)]
    if not (cells or notes or (ledger.robustness and ledger.robustness.left_out)):
        return None
    robustness = ledger.robustness
    images = robustness.images if robustness else 0
    table = titled_table(f"Accuracy on {plural(images, 'corrupted test image')}, in %")
    if robustness is not None and robustness.left_out:
        notes.insert(0, conditions(ledger))
    table.add_column("")
    for header in (*FAMILIES, "NLL", "ECE"):
        table.add_column(header, justify="right", no_wrap=True)
    for item in cells:
        accuracies = (item.accuracy.get(family, DASH) for family in FAMILIES)
        table.add_row(Text(item.stage), *accuracies, item.nll["all"], item.ece["all"])
    table.caption = Text("\n".join(notes))
    return table


def _other_data(ledger: Ledger) -> list[str]:
    robustness = ledger.robustness
    shown = main_stages(ledger)
    return [
        f"{stage_label(row.stage)} against {row.data}: AUROC {fixed(row.auroc, 3)}"
        for row in (robustness.other_data if robustness else ())
        if row.stage == (ledger.released if ledger.released in shown else shown[-1])
    ]


def _sets(ledger: Ledger) -> list[str]:
    row = released_coverage(ledger)
    if row is None:
        return []
    decimals = decimals_on_test(ledger)
    return [
        f"prediction sets of the {stage_label(row.stage)}, target coverage "
        f"{percent(row.level, 0)}: {percent(row.coverage, decimals)} "
        f"({percent_range(row.interval, decimals)}) contain the true class; "
        f"{fixed(row.mean_size, 2)} classes on average"
    ]


def selection_table(selection: Selection) -> Table:
    """Return the ensemble: members and weights, its scores on holdout, its certificate."""
    members = selection.members
    table = titled_table(f"Ensemble of {plural(len(members), 'member')}")
    table.add_column("member")
    table.add_column("weight", justify="right")
    table.add_column("", no_wrap=True)
    largest = max((member.weight for member in members), default=1.0)
    for member in members:
        weight = member.weight
        bar = "█" * max(1, round(BAR_CELLS * weight / largest))
        table.add_row(name_text(member.name), percent(weight), Text(bar, style="blue"))
    scores = selection.metrics.holdout
    table.caption = (
        f"{_chosen(selection)}{selection.weighting} weights, {selection.pooling} pooling, "
        f"temperature {fixed(selection.temperature, 3)}\n"
        f"holdout, cross-fitted: accuracy {percent(scores.accuracy)}, NLL "
        f"{fixed(scores.nll, 4)}, Brier {fixed(scores.brier, 4)}\n"
        f"{_certificate(selection)}"
    )
    return table


def _chosen(selection: Selection) -> str:
    tied = sum(candidate.tied for candidate in selection.candidates)
    if not tied:
        return ""
    return f"{selection.candidate}, of {plural(tied, 'candidate')} within one standard error\n"


def _certificate(selection: Selection) -> str:
    certificate = selection.certificate
    if certificate is None:
        return (
            f"no reweighting lowers the NLL by more than {two_digits(selection.gap_support)} "
            f"nats\nwith these members, or {two_digits(selection.gap_pool)} with the whole pool"
        )
    return (
        "optimal weights, calibrated, would change the NLL on holdout by\n"
        f"{signed(-certificate.support.excess, 4)} nats with these members, "
        f"{signed(-certificate.pool.excess, 4)} with the whole pool\n"
        f"(bounds before calibration: {two_digits(selection.gap_support)} and "
        f"{two_digits(selection.gap_pool)})"
    )


def _by_pair(ledger: Ledger) -> dict[tuple[str, str], list[DifferenceCells]]:
    pairs: dict[tuple[str, str], list[DifferenceCells]] = {}
    shown = [item for item in ledger.differences if (item.a, item.b) not in DETAILS]
    for cells in difference_cells(shown, decimals_on_test(ledger), unit="pts"):
        pairs.setdefault((cells.a, cells.b), []).append(cells)
    return pairs


def _title(ledger: Ledger) -> str:
    images = sizes(ledger).get("test")
    reads = ledger.test_reads
    times = "once" if reads == 1 else f"{reads} times"
    on = plural(int(images), "test image") if images else "test"
    return f"Ledger: {on}, read {times}"
