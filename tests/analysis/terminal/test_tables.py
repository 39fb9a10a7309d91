"""Tables and the words in them."""

import copy
import json
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from analysis.facts.run_facts import RunFacts, load_facts
from analysis.terminal import tables
from tests.docs import ROOT
from tests.synthetic.predictions import SMALL
from tests.synthetic.run import write_run


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> RunFacts:
    return load_facts(write_run(tmp_path_factory.mktemp("runs") / "tables", shape=SMALL))


@pytest.fixture
def ledger(facts: RunFacts) -> dict[str, Any]:
    found: dict[str, Any] = copy.deepcopy(dict(facts.ledger or {}))
    return found


def shown(table: Table, width: int) -> list[str]:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 100])
def test_tables_fit_the_terminal_uncut(facts: RunFacts, ledger: dict[str, Any], width: int) -> None:
    """With the widest figures that a real run has: ten thousand images, hours, gigabytes."""
    ledger["dataset"]["sizes"]["test"] = 10_000
    for row in ledger["rows"]:
        row |= {"bytes": 123_456_789, "params": 123_456_789, "train_seconds": 123_456.0}
        row |= {"nll": 0.1234, "latency_ms_batch1": 123.45, "images_per_second": 123_456.0}
    for table in (
        tables.ledger_table(ledger),
        tables.differences_table(ledger),
        tables.gates_table(ledger),
        tables.selection_table(facts.selection or {}),
        tables.sweep_table(facts.search_trials),
    ):
        lines = shown(table, width)
        assert max(map(len, lines)) <= width
        assert "…" not in "\n".join(lines)


def test_ledger_table_has_every_stage_and_figure(ledger: dict[str, Any]) -> None:
    text = " ".join(" ".join(shown(tables.ledger_table(ledger), 100)).split())
    assert "120 images of test, read once" in text
    for row in ledger["rows"]:
        assert f"{100 * row['accuracy']:.1f}" in text
        assert f"{row['ece_null']:.3f}" in text
    assert text.count("student") == 3


def test_missing_figures_are_dashes(ledger: dict[str, Any]) -> None:
    for row in ledger["rows"]:
        row |= {"latency_ms_batch1": None, "bytes": None, "agreement_with_ensemble": None}
    text = "\n".join(shown(tables.ledger_table(ledger), 100))
    assert text.count("–") >= 3 * len(ledger["rows"])


def test_differences_say_not_distinguishable(ledger: dict[str, Any]) -> None:
    for item in ledger["differences"]:
        item["interval"] = [-0.01, 0.01]
    text = "\n".join(shown(tables.differences_table(ledger), 100))
    assert text.count("not distinguishable") == len(ledger["differences"])


def test_gates_table_without_gates_says_so() -> None:
    assert "no student has been judged" in " ".join(shown(tables.gates_table({"gates": []}), 80))


def test_names_are_never_markup(ledger: dict[str, Any]) -> None:
    ledger["gates"][0]["name"] = "[red]speed[/red]"
    ledger["rows"][0]["stage"] = "[bold]odd[/bold]"
    text = "\n".join(
        line
        for table in (tables.gates_table(ledger), tables.ledger_table(ledger))
        for line in shown(table, 120)
    )
    assert "[red]speed[/red]" in text
    assert "[bold]odd[/bold]" in text


def test_sweep_table_ranks_by_rung_then_score(facts: RunFacts) -> None:
    lines = shown(tables.sweep_table(facts.search_trials, limit=4), 100)
    names = [line.split()[0] for line in lines if line.startswith("t0")]
    ranked = sorted(
        (t for t in facts.search_trials if t.rung),
        key=lambda t: (-(t.rung or 0), t.scores[t.rung or 0]),
    )
    assert names == [trial.trial for trial in ranked[:4]]
    assert facts.best is not None
    assert names[0] == facts.best.trial


def test_markdown_is_one_well_formed_table(ledger: dict[str, Any]) -> None:
    lines = tables.ledger_markdown(ledger).splitlines()
    assert len(lines) == 2 + len(ledger["rows"])
    assert {line.count("|") for line in lines} == {11}
    assert "student int8" in lines[-1]


def test_tables_load_quickly() -> None:
    absent = ("torch", "matplotlib", "pandas", "ray")
    code = f"import sys, analysis.terminal.tables; print([m for m in {absent} if m in sys.modules])"
    root = ROOT
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert result.stdout.strip() == "[]"


def test_ledger_of_the_run_is_json(facts: RunFacts) -> None:
    assert json.loads(json.dumps(facts.ledger)) == facts.ledger
