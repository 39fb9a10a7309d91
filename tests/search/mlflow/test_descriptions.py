"""The Markdown descriptions of runs, trials and models in MLflow."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from search.mlflow.descriptions import (
    MOST_CHARACTERS,
    describe_model,
    describe_run,
    describe_trial,
    serve_command,
)
from tests.docs import ROOT
from tests.synthetic_sweep import SPEC

LEDGER: dict[str, Any] = json.loads((ROOT / "results/digits-demo/ledger.json").read_text())


def tables_in(note: str) -> list[list[list[str]]]:
    """Return the cells of every table of a note, without the rule below the header."""
    tables: list[list[list[str]]] = []
    inside = False
    for line in note.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.replace("&nbsp;", "").strip("|").split("|")]
            if not inside:
                tables.append([])
            if set(cells) != {"---"}:
                tables[-1].append(cells)
        inside = line.startswith("|")
    return tables


def test_a_run_without_a_ledger_describes_its_plan() -> None:
    description, plan = describe_run(SPEC).split("\n\n")
    assert description == SPEC["description"]
    assert plan.startswith("20 trials, scored by `val_nll` after 3 → 9 → 27 epochs")
    assert describe_run({}) == ""


def test_a_note_shows_the_whole_ledger() -> None:
    note = describe_run(SPEC, ledger=LEDGER, commands=["quorum report runs/mine"])
    assert note.splitlines()[0] == (
        "**`student_int8` ships**: accuracy 99.16% on test (ensemble 99.50%), 181 kB, "
        "0.06 ms per image; 4 of 4 gates passed."
    )
    assert "### Ledger: test, 597 images, read once" in note
    rows, differences, gates = tables_in(note)
    assert [row[0] for row in rows[1:]] == [row["stage"] for row in LEDGER["rows"]]
    assert rows[1] == [
        "best_single", "99.33% (98.29% to 99.74%)", "0.0263", "0.0071", "692 kB", "0.10 ms",
    ]  # fmt: skip
    assert differences[1] == [
        "ensemble − best_single", "accuracy", "+0.17 pp (−0.64 pp to +1.06 pp)",
        "not distinguishable",
    ]  # fmt: skip
    assert len(differences) == 1 + len(LEDGER["differences"])
    assert [(row[0], row[4]) for row in gates[1:]] == [
        (gate["name"], f"**{gate['verdict']}**") for gate in LEDGER["gates"]
    ]
    assert all(len(row) == len(table[0]) for table in (rows, differences, gates) for row in table)
    assert note.endswith("```\nquorum report runs/mine\n```")


@given(st.integers(0, 400), st.text(max_size=3000))
def test_a_note_fits_into_a_tag(rows: int, description: str) -> None:
    ledger = {**LEDGER, "differences": LEDGER["differences"][:1] * rows}
    note = describe_run({"description": description}, ledger=ledger, commands=["quorum report x"])
    assert len(note) <= MOST_CHARACTERS


def test_missing_values_are_dashes() -> None:
    note = describe_run({}, ledger={"rows": [{"stage": "ensemble", "accuracy": None}]})
    assert tables_in(note)[0][1] == ["ensemble", "– (– to –)", "–", "–", "–", "–"]
    assert "ships" not in note


def test_the_end_of_a_long_traceback_is_kept() -> None:
    note = describe_trial("failed", "x", "frame\n" * 5000 + "KeyError: 'y'")
    assert len(note) < MOST_CHARACTERS
    assert "KeyError: 'y'" in note
    assert describe_trial("pruned", "val_nll 2.1 missed the cutoff 1.3 of rung 3") == (
        "**pruned:** val_nll 2.1 missed the cutoff 1.3 of rung 3"
    )


def test_a_model_note_has_the_command_that_serves_it() -> None:
    names = [f"class {i}" for i in range(30)]
    note = describe_model("quorum-mine", "sqlite:////runs/mlflow.db", 32, names, "About it.")
    assert serve_command("quorum-mine", "sqlite:////runs/mlflow.db") in note
    assert "--host 127.0.0.1" in note
    assert "uint8 [N, 32, 32, 3]" in note
    assert "`class 19` … (30 in all)" in note
