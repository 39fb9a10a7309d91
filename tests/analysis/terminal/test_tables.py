"""Tables and the words in them."""

import copy
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from analysis.facts.run_facts import RunFacts, load_facts
from analysis.terminal import tables
from analysis.text import formats, wording
from tests.docs import ROOT
from tests.synthetic import SMALL, write_run
from trainables.data.source_sizes import Originals

finite = st.floats(-1e12, 1e12)


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.percent(0.9543), "95.4%"),
        (formats.percent(None), "–"),
        (formats.percent(float("nan")), "–"),
        (formats.percent_range((0.9, 0.955)), "90.0–95.5"),
        (formats.signed(-0.0031, 4), "−0.0031"),
        (formats.signed_range((-0.01, 0.2), 2), "−0.01 to +0.20"),
        (formats.compact(1_970_000), "1.97M"),
        (formats.compact(999_700), "1.00M"),
        (formats.compact(812), "812"),
        (formats.file_size(91_004), "91.0 kB"),
        (formats.duration(8.44), "8.4 s"),
        (formats.duration(59.7), "1 min 00 s"),
        (formats.duration(185), "3 min 05 s"),
        (formats.duration(7_800), "2 h 10 min"),
        (formats.short_duration(185), "3m05s"),
        (formats.milliseconds(0.281), "0.28 ms"),
        (formats.plural(1, "trial"), "1 trial"),
        (formats.plural(1200, "image"), "1,200 images"),
        (formats.value_text([1, 2.5, None]), "1, 2.5, –"),
        (formats.value_text(False), "no"),
        (formats.round_text("50.0 kB"), "50 kB"),
        (formats.round_text("5.05 MB"), "5.05 MB"),
        (formats.round_text("5m00s"), "5m"),
        (formats.round_text("100s"), "100s"),
        (wording.originals_text(Originals.of({(32, 32, "RGB"): 9})), "32×32 pixels, RGB"),
        (
            wording.originals_text(Originals.of({(8, 9, "L"): 2, (8, 9, "XY"): 1000})),
            "8×9 pixels; 1,000 XY, 2 grey",
        ),
        (formats.minus("gains -0.01 on 2026-11-22, top-5"), "gains −0.01 on 2026-11-22, top-5"),
    ],
)
def test_numbers_read_as_a_person_writes_them(text: str, expected: str) -> None:
    assert text == expected


@given(st.integers(1, 999_000_000_000))
def test_compact_keeps_three_digits(value: int) -> None:
    text = formats.compact(value)
    scale = {"k": 1e3, "M": 1e6, "G": 1e9}.get(text[-1], 1.0)
    assert float(text.rstrip("kMG")) * scale == pytest.approx(value, rel=0.0051)
    assert len(text) <= 5


@given(st.text(max_size=60), st.integers(4, 40))
def test_shorten_keeps_both_ends_within_the_width(text: str, width: int) -> None:
    short = formats.shorten(text, width)
    line = " ".join(text.split())
    assert len(short) <= width
    assert short == formats.shorten(short, width)
    assert short == line or (short[0] == line[0] and short[-1] == line[-1] and "…" in short)


@given(st.integers(2, 300), st.integers(12, 28))
def test_long_names_that_differ_in_their_middle_stay_apart(count: int, width: int) -> None:
    names = [f"a rather long name, number {i:03d} of many classes" for i in range(count)]
    found = formats.shorten_all([*names, "cat", "", ""], width)
    assert len(set(found[:-2])) == count + 1
    assert max(map(len, found)) <= width
    assert found[-3:] == ["cat", "", ""]


@given(finite, finite, st.sampled_from(["accuracy", "balanced_accuracy", "nll", "brier"]))
def test_verdict_turns_round_with_the_difference(a: float, b: float, metric: str) -> None:
    low, high = sorted((a, b))
    item = {
        "a": "x",
        "b": "y",
        "metric": metric,
        "value": (low + high) / 2,
        "interval": [low, high],
    }
    turned = wording.difference_of({"differences": [item]}, "y", "x", metric)
    assert turned is not None
    opposite = {"better": "worse", "worse": "better"}
    found = wording.verdict(item)
    assert wording.verdict(turned) == opposite.get(found, found)
    assert (found == "not distinguishable") == (low <= 0 <= high)


def test_an_exact_test_in_the_ledger_overrules_the_interval() -> None:
    item = {"metric": "accuracy", "interval": [0.001, 0.02], "verdict": "not distinguishable"}
    assert wording.verdict(item) == "not distinguishable"
    assert wording.verdict({**item, "verdict": "distinguishable"}) == "better"
    assert wording.verdict({**item, "verdict": "distinguishable", "metric": "nll"}) == "worse"


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
