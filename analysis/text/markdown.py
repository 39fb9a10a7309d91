"""Write a ledger in Markdown, for the description of a run in MLflow.

The terminal and the report show the same cells (`analysis.text.cells`).
"""

from collections.abc import Iterable, Sequence

from analysis.text.cells import difference_cells, gate_cells, stage_cells
from analysis.text.labels import reason_text, stage_label
from analysis.text.ledger import decimals_on_test, row_of, sizes
from analysis.text.robustness import FAMILIES, conditions, corrupted_cells, main_stages
from common.errors import RunError
from common.formats import DASH, file_size, milliseconds, percent, plural
from ensemble.ledger.ledger import Ledger, read_ledger
from search.mlflow.descriptions import ResultText
from trainables.records import RunFolder


def describe_result(folder: RunFolder) -> ResultText | None:
    """Describe a run's ledger in Markdown; None before there is one."""
    try:
        return ledger_text(read_ledger(folder.ledger / "ledger.json"))
    except RunError:
        return None


def ledger_text(ledger: Ledger) -> ResultText:
    """Return one line on what ships, and the tables of rows, differences, gates, robustness."""
    parts = (_stages(ledger), _differences(ledger), _gates(ledger), _robustness(ledger))
    return ResultText(
        headline=_headline(ledger), tables="\n\n".join(part for part in parts if part)
    )


def _headline(ledger: Ledger) -> str:
    shipped = row_of(ledger, ledger.released)
    if shipped is None:
        reason = reason_text(ledger.released_because)
        return f"**Nothing ships**: {reason}." if ledger.candidates else ""
    decimals, ensemble = decimals_on_test(ledger), row_of(ledger, "ensemble")
    beside = f" (ensemble {percent(ensemble.accuracy, decimals)})" if ensemble else ""
    passed = sum(gate.verdict == "pass" for gate in ledger.gates)
    return (
        f"**The {stage_label(shipped.stage)} ships**: accuracy "
        f"{percent(shipped.accuracy, decimals)} on test{beside}, {file_size(shipped.bytes)}, "
        f"{milliseconds(shipped.latency_ms_batch1)} per image; {passed} of "
        f"{plural(len(ledger.gates), 'gate')} passed."
    )


def _stages(ledger: Ledger) -> str:
    images = f", {plural(sizes(ledger)['test'], 'image')}" if "test" in sizes(ledger) else ""
    times = "once" if ledger.test_reads == 1 else f"{ledger.test_reads} times"
    rows = [
        (
            cells.stage,
            f"{cells.accuracy} ({cells.interval})",
            cells.nll,
            cells.ece,
            cells.size,
            cells.latency_ms,
        )
        for cells in stage_cells(ledger)
    ]
    header = ("stage", "accuracy, % (95%)", "NLL", "ECE", "size", "ms, one image")
    return f"### Ledger: test{images}, read {times}\n\n{_table(header, rows)}"


def _differences(ledger: Ledger) -> str:
    rows = [
        (f"{cells.a} − {cells.b}", cells.metric, f"{cells.value} ({cells.interval})", cells.verdict)
        for cells in difference_cells(ledger.differences, decimals_on_test(ledger))
    ]
    header = ("difference on test", "metric", "value (95%)", "verdict")
    return f"### Differences\n\n{_table(header, rows)}" if rows else ""


def _gates(ledger: Ledger) -> str:
    rows = [
        (
            cells.file,
            cells.requirement,
            cells.limit,
            cells.value,
            cells.bound,
            f"**{cells.verdict}**",
        )
        for cells in gate_cells(ledger)
    ]
    header = ("file", "gate, on holdout", "limit", "value", "bound", "verdict")
    return f"### Gates\n\n{_table(header, rows)}" if rows else ""


def _robustness(ledger: Ledger) -> str:
    rows = [
        (cells.stage, *(cells.accuracy.get(family, DASH) for family in FAMILIES), cells.nll["all"])
        for cells in corrupted_cells(ledger, main_stages(ledger))
    ]
    header = ("accuracy, %", *FAMILIES, "NLL")
    return f"### Corrupted images\n\n{conditions(ledger)}\n\n{_table(header, rows)}" if rows else ""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; MLflow sets columns without a gap, so all but the first add one."""
    gap = " | &nbsp;&nbsp;"
    lines = ["| " + gap.join(line) + " |" for line in (header, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(header), *lines[1:]])
