import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from analysis.facts.run_facts import RunFacts
from analysis.terminal.ledger_tables import (
    DETAILS,
    differences_table,
    gates_table,
    ledger_table,
    robustness_table,
    selection_table,
)
from ensemble.ledger.ledger import Ledger
from ensemble.ledger.robustness import Robustness
from tests.docs import ROOT
from tests.rendering import shown
from tests.synthetic.ledger_values import made_gate, made_ledger, made_row

WIDEST: dict[str, Any] = {
    "bytes": 123_456_789, "params": 123_456_789, "train_seconds": 123_456.0, "nll": 0.1234,
    "latency_ms_batch1": 123.45, "images_per_second": 123_456.0,
}  # fmt: skip


@pytest.mark.parametrize("width", [80, 100])
def test_tables_with_the_widest_values_fit_the_terminal(
    facts: RunFacts, ledger: Ledger, width: int
) -> None:
    """Ten thousand images, hours of training and gigabytes, as in a real run."""
    assert facts.selection is not None
    wide = replace(
        ledger,
        dataset=replace(ledger.dataset, sizes={"test": 10_000}),
        rows=tuple(replace(row, **WIDEST) for row in ledger.rows),
    )
    for table in (
        ledger_table(wide),
        differences_table(wide),
        gates_table(wide),
        robustness_table(wide),
        selection_table(facts.selection),
    ):
        assert table is not None
        lines = shown(table, width)
        assert max(map(len, lines)) <= width
        assert "…" not in "\n".join(lines)


def test_ledger_table_shows_every_stage_and_value(ledger: Ledger) -> None:
    text = " ".join(" ".join(shown(ledger_table(ledger), 100)).split())
    assert re.findall(r"\d+", str(ledger_table(ledger).title)) == ["120"]
    again = ledger_table(replace(ledger, test_reads=3))
    assert re.findall(r"\d+", str(again.title)) == ["120", "3"]
    for row in ledger.rows:
        assert f"{100 * row.accuracy:.1f}" in text
        assert f"{row.ece_null:.3f}" in text
    assert text.count("student") == 3


def test_missing_values_are_dashes() -> None:
    text = "\n".join(shown(ledger_table(made_ledger(made_row(), made_row("best_single"))), 100))
    assert text.count("–") >= 2 * 6, "params, size, latency, throughput, training, agreement"


def test_an_interval_around_zero_is_not_distinguishable(ledger: Ledger) -> None:
    differences = tuple(replace(item, interval=(-0.01, 0.01)) for item in ledger.differences)
    text = "\n".join(shown(differences_table(replace(ledger, differences=differences)), 100))
    shown_pairs = {(item.a, item.b) for item in differences} - DETAILS
    assert sum(line.rstrip().endswith("–") for line in text.splitlines()) == 2 * len(shown_pairs)
    assert "not distinguishable" in text


def test_gates_table_without_gates_has_a_note() -> None:
    assert "no file has been judged" in " ".join(shown(gates_table(made_ledger()), 80))


def test_corrupted_images_have_a_row_for_the_stages_that_matter(ledger: Ledger) -> None:
    table = robustness_table(ledger)
    assert table is not None
    assert ledger.robustness is not None
    text = "\n".join(shown(table, 80))
    for stage in {"best_single", "ensemble", ledger.released} & {
        row.stage for row in ledger.robustness.rows
    }:
        row = ledger.robustness.row(stage)
        assert row is not None
        assert f"{100 * row.accuracy:.1f}" in text
    sets = next(row for row in ledger.conformal if row.stage == ledger.released)
    assert f"{100 * sets.coverage:.1f}%" in text


def test_a_ledger_says_why_corrupted_images_were_left_out(ledger: Ledger) -> None:
    table = robustness_table(replace(ledger, robustness=Robustness(left_out="no time")))
    assert table is not None
    assert "no time" in str(table.caption)
    assert robustness_table(replace(ledger, robustness=None, conformal=())) is None


def test_names_are_never_markup() -> None:
    ledger = made_ledger(made_row("[bold]odd[/bold]"), gates=(made_gate(name="[red]speed[/red]"),))
    text = "\n".join(
        line for table in (gates_table(ledger), ledger_table(ledger)) for line in shown(table, 120)
    )
    assert "[red]speed[/red]" in text
    assert "[bold]odd[/bold]" in text


def test_selection_table_shows_members_and_certificate(facts: RunFacts) -> None:
    assert facts.selection is not None
    selection = replace(facts.selection, gap_support=0.00957, gap_pool=0.0412)
    table = selection_table(selection)
    lines = shown(table, 80)
    for member in selection.members:
        row = next(line.split() for line in lines if line.split()[:1] == [member.name])
        assert row[1] == f"{100 * member.weight:.1f}%"
    text = " ".join(" ".join(lines).split())
    assert " ".join(str(table.caption).split()) in text
    certificates = re.findall(r"\d+\.\d+", str(table.caption))[-2:]
    assert certificates == ["0.0096", "0.041"], "of the members, and of the whole pool"


def test_tables_load_without_heavy_libraries() -> None:
    absent = ("torch", "matplotlib", "pandas", "ray")
    code = (
        "import sys, analysis.terminal.ledger_tables; "
        f"print([m for m in {absent} if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"
