"""The ledger's files: what is written is read back."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import RunError
from ensemble.ledger.ledger import Ledger, LedgerDataset, read_ledger, write_ledger_files
from ensemble.ledger.predictions import STAGES, StageCost
from ensemble.ledger.rows import ledger_rows, paired_differences
from tests.docs import ROOT
from tests.pools import stage_predictions


@pytest.fixture
def ledger() -> Ledger:
    predictions = stage_predictions(8)
    return Ledger(
        run="r",
        dataset=LedgerDataset(name="d", fingerprint="f", split_id="s", sizes={"test": 150}),
        rows=ledger_rows(predictions, {"ensemble": StageCost(params=5)}),
        differences=paired_differences(predictions),
        gates=(),
        released="student_fp32",
        test_reads=1,
        compute={"trials": 3, "search_seconds": 1.5},
        machine={"cores": 2},
    )


def test_a_ledger_is_read_as_it_was_written(tmp_path: Path, ledger: Ledger) -> None:
    write_ledger_files(tmp_path, ledger)
    read = read_ledger(tmp_path / "ledger.json")
    assert read == ledger
    assert isinstance(read.compute["trials"], int)


def test_a_ledger_of_another_schema_is_refused(tmp_path: Path, ledger: Ledger) -> None:
    write_ledger_files(tmp_path, replace(ledger, schema=99))
    with pytest.raises(RunError, match="schema 99"):
        read_ledger(tmp_path / "ledger.json")


def test_the_csv_holds_the_rows(tmp_path: Path, ledger: Ledger) -> None:
    write_ledger_files(tmp_path, ledger)
    read = list(csv.DictReader(io.StringIO((tmp_path / "ledger.csv").read_text())))
    assert [cells["stage"] for cells in read] == list(STAGES)
    for row, cells in zip(ledger.rows, read, strict=True):
        assert float(cells["nll"]) == row.nll
        interval = tuple(float(cells[f"accuracy_interval_{end}"]) for end in ("low", "high"))
        assert interval == row.accuracy_interval
    params = {cells["stage"]: cells["params"] for cells in read}
    assert params == {**dict.fromkeys(STAGES, ""), "ensemble": "5"}


def test_rows_and_differences_are_found_by_name(ledger: Ledger) -> None:
    row, difference = ledger.row("ensemble"), ledger.difference("ensemble", "best_single", "nll")
    assert row is ledger.rows[STAGES.index("ensemble")]
    assert difference is ledger.differences[1]
    assert ledger.row("best_of_all") is None
    assert ledger.difference("best_single", "ensemble", "nll") is None


def test_the_ledgers_of_early_versions_name_the_released_row(ledger: Ledger) -> None:
    assert replace(ledger, released="int8").released == "student_int8"
    assert replace(ledger, released="fp32", rows=()).released == "none"


def test_every_published_ledger_can_be_read() -> None:
    paths = sorted((ROOT / "results").rglob("*/ledger.json"))
    assert len(paths) >= 3
    for path in paths:
        assert read_ledger(path).rows
