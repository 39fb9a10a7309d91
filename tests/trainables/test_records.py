"""Write-once records: written atomically, and a clear error if damaged."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import RunError
from common.files import file_sha256, write_array, write_bytes_atomically
from tests.docs import ROOT
from trainables.recipe import Numerics, Recipe
from trainables.records import (
    SCHEMA,
    RunFolder,
    TrialRecord,
    TrialStart,
    read_record,
    read_start,
    write_record,
    write_start,
)

START = TrialStart(
    trial="t0017",
    kind="search",
    recipe=Recipe(width=48, attention="se", lr_per_1024=2.5),
    seed=123,
    rungs=(3, 9, 27),
    data={"name": "digits", "path": None, "fingerprint": "sha256:0123456789abcdef"},
    split_id="0123456789abcdef",
    numerics=Numerics(dtype="bfloat16", threads=2),
    code_version="0.1.0+abc",
    machine={"cores": 2, "cpu_flags": ["avx2"]},
)

RECORD = TrialRecord(
    trial="t0017",
    kind="search",
    status="completed",
    split_id="0123456789abcdef",
    steps=31,
    rung=27,
    whole_schedule=True,
    seconds=12.5,
    peak_memory_bytes=10**9,
    params=73_114,
    metrics={"val_nll": 0.21, "val_accuracy": 0.95, "temperature": 1.0},
)

GOLDEN = ROOT / "tests" / "golden"


def test_a_start_file_is_read_back_unchanged(tmp_path: Path) -> None:
    write_start(tmp_path / "t0017", START)
    assert read_start(tmp_path / "t0017" / "start.json") == START
    write_start(tmp_path / "t0017", START)  # an identical file is kept


def test_a_record_has_the_checksums_of_the_files_beside_it(tmp_path: Path) -> None:
    write_array(tmp_path / "val.npy", np.arange(3.0))
    write_bytes_atomically(tmp_path / "weights.safetensors", b"weights")
    (tmp_path / "notes.txt").write_text("not a result")
    write_record(tmp_path, RECORD)
    found = read_record(tmp_path / "record.json")
    assert found.metrics == RECORD.metrics
    assert found.sha256 == {
        "val.npy": file_sha256(tmp_path / "val.npy"),
        "weights.safetensors": file_sha256(tmp_path / "weights.safetensors"),
    }


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_records_of_every_schema_are_read(schema: int) -> None:
    """Golden files, written once for each schema by `write_start` and `write_record`."""
    assert read_start(GOLDEN / f"start_schema{schema}.json") == START
    assert read_record(GOLDEN / f"record_schema{schema}.json") == RECORD


def test_records_are_written_once(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    other = TrialRecord(**{**_fields(RECORD), "seconds": 13.0})
    with pytest.raises(RunError, match=r"record.json is already written, .*write-once"):
        write_record(tmp_path, other)
    assert read_record(tmp_path / "record.json").seconds == 12.5


def _fields(record: TrialRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in TrialRecord.__dataclass_fields__}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is damaged"),
        ('{"schema": 1', "is damaged"),
        ("[1]", "expected an object, got list"),
        ("\udcff", "is damaged"),
        ("{}", "schema None, this version reads 1"),
        ('{"schema": 2}', "schema 2, this version reads 1"),
        ('{"schema": 1}', "the key 'trial' is required; the file is damaged, or of another"),
        ('{"schema": 1, "colour": 3}', "unknown key 'colour'"),
    ],
)
def test_a_damaged_record_is_one_clear_error(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(RunError, match=message):
        read_record(path)


def test_a_record_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    path = tmp_path / "record.json"
    whole = path.read_bytes()
    for length in range(len(whole) - 1):  # the last byte is the newline
        path.write_bytes(whole[:length])
        with pytest.raises(RunError, match=r"record\.json"):
            read_record(path)


def test_all_paths_of_a_run_lie_in_its_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "night")
    assert run.name == "night"
    assert os.fspath(run) == str(tmp_path / "runs" / "night")
    for name in ("sweep", "journal", "labels", "optuna", "checkpoints", "selection", "student",
                 "ledger", "figures", "report"):  # fmt: skip
        assert getattr(run, name).parent == run.root
    assert run.trial("t0001") == run.root / "trials" / "t0001"
    assert not run.root.exists()  # no file was written


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc", "a/b", "a/", ".hidden"])
def test_a_trial_cannot_leave_its_run(name: str) -> None:
    with pytest.raises(RunError, match="is not the name of a trial"):
        RunFolder("run").trial(name)


def test_a_run_lists_its_trials_by_name(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for name in ("t0002", "t0000", "t0001"):
        start = TrialStart(
            **{**{f: getattr(START, f) for f in TrialStart.__dataclass_fields__}, "trial": name}
        )
        write_start(run.trial(name), start)
    write_record(run.trial("t0002"), RECORD)
    assert [start.trial for start in run.starts()] == ["t0000", "t0001", "t0002"]
    assert len(list(run.records())) == 1


def test_a_folder_without_a_run_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run at .*: it has no sweep\.yaml"):
        RunFolder(tmp_path).require()
    (tmp_path / "sweep.yaml").touch()
    assert RunFolder(tmp_path).require().root == tmp_path
