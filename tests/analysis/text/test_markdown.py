"""The ledger in Markdown: what ships first, then tables that MLflow shows."""

from analysis.text.markdown import ledger_text
from ensemble.ledger.ledger import read_ledger
from ensemble.ledger.robustness import CorruptedRow, Robustness
from tests.docs import ROOT
from tests.synthetic.ledger_values import made_ledger, made_row

LEDGER = read_ledger(ROOT / "results/digits-demo/ledger.json")


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


def test_the_whole_ledger_is_shown() -> None:
    text = ledger_text(LEDGER)
    assert text.headline == (
        "**The int8 student ships**: accuracy 99.2% on test (ensemble 99.5%), 181 kB, "
        "0.06 ms per image; 4 of 4 gates passed."
    )
    assert "597 images, read once" in text.tables
    rows, differences, gates = tables_in(text.tables)
    assert len(rows) == 1 + len(LEDGER.rows)
    assert rows[1] == ["best single", "99.3 (98.3–99.7)", "0.026", "0.007", "692 kB", "0.10"]
    assert len(differences) == 1 + len(LEDGER.differences)
    assert differences[1][0] == "ensemble − best single"
    assert differences[1][3] == "not distinguishable"
    assert [row[5] for row in gates[1:]] == [f"**{gate.verdict}**" for gate in LEDGER.gates]
    assert all(len(row) == len(table[0]) for table in (rows, differences, gates) for row in table)


def test_corrupted_images_have_a_table_with_their_conditions() -> None:
    rows = tuple(
        CorruptedRow(stage="ensemble", family=family, images=60, accuracy=0.75,
                     accuracy_interval=(0.6, 0.8), nll=0.5, ece=0.1, ece_null=0.1)
        for family in ("clean", "blur", "all")
    )  # fmt: skip
    robustness = Robustness(images=60, holdout_images=90, rows=rows)
    text = ledger_text(made_ledger(made_row("ensemble"), robustness=robustness)).tables
    assert "60 test images" in text
    assert "90 other images" in text
    shown = tables_in(text)[-1]
    assert shown[1] == ["ensemble", "75.0", "–", "75.0", "–", "–", "75.0", "0.500"]
    assert "### Corrupted" not in ledger_text(LEDGER).tables


def test_a_ledger_without_a_student_ships_nothing() -> None:
    text = ledger_text(made_ledger(made_row("ensemble", nll=float("nan"))))
    assert text.headline == ""
    assert "### Differences" not in text.tables
    assert "### Gates" not in text.tables
    assert tables_in(text.tables)[0][1][2:] == ["–", "0.010", "–", "–"]
