"""Write-once records: whole or not at all, and clear when damaged."""

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from trainables.errors import RunError
from trainables.recipe import Numerics, Recipe
from trainables.records import (
    SCHEMA,
    RunFolder,
    TrialRecord,
    TrialStart,
    code_version,
    dump_json,
    file_sha256,
    machine_description,
    read_array,
    read_json,
    read_record,
    read_start,
    write_array,
    write_bytes_atomically,
    write_json_once,
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

GOLDEN = Path(__file__).parent / "golden"


def test_a_start_there_and_back(tmp_path: Path) -> None:
    write_start(tmp_path / "t0017", START)
    assert read_start(tmp_path / "t0017" / "start.json") == START
    write_start(tmp_path / "t0017", START)  # an identical one is left as it is


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
    known = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    write_bytes_atomically(tmp_path / "test", b"test")
    assert file_sha256(tmp_path / "test") == known


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


def test_what_is_no_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"absent\.json does not exist"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(RunError, match="cannot be read"):
        read_json(tmp_path)


def test_json_has_no_nan(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            dump_json({"nll": value})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_once(tmp_path / "x.json", {"nll": float("nan")})
    assert list(tmp_path.iterdir()) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_json_there_and_back(tmp_path: Path, value: dict[str, Any]) -> None:
    path = tmp_path / "value.json"
    path.unlink(missing_ok=True)
    write_json_once(path, value)
    assert read_json(path) == value
    assert path.read_text().endswith("}\n")


@given(arrays(np.float32, array_shapes(max_dims=3, max_side=5)))
def test_arrays_there_and_back(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    write_array(tmp_path / "a.npy", array)
    found = read_array(tmp_path / "a.npy")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_array(tmp_path / "a.npy", np.array([{}]))
    np.save(tmp_path / "b.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(RunError, match=r"b\.npy cannot be read as an array"):
        read_array(tmp_path / "b.npy")


def test_a_damaged_array_is_an_error_or_an_array_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_array(path, np.arange(12, dtype=np.float32))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RunError, match=r"a\.npy cannot be read as an array"):
            read_array(path)
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x08]) + whole[i + 1 :])
        with contextlib.suppress(RunError):
            assert isinstance(read_array(path), np.ndarray)


def test_an_archive_is_no_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    with pytest.raises(
        RunError, match=r"a\.npz cannot be read as an array: the magic string is not correct"
    ):
        read_array(tmp_path / "a.npz")


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_bytes_atomically(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_bytes_atomically(tmp_path / "deep" / "file", b"x")
    assert stat.S_IMODE((tmp_path / "deep" / "file").stat().st_mode) == 0o644


def test_the_paths_of_a_run_lie_in_its_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "night")
    assert run.name == "night"
    assert os.fspath(run) == str(tmp_path / "runs" / "night")
    for name in ("sweep", "journal", "labels", "optuna", "checkpoints", "selection", "student",
                 "ledger", "figures", "report"):  # fmt: skip
        assert getattr(run, name).parent == run.root
    assert run.trial("t0001") == run.root / "trials" / "t0001"
    assert not run.root.exists()  # nothing was touched


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


def test_no_run_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run at .*: it has no sweep\.yaml"):
        RunFolder(tmp_path).require()
    (tmp_path / "sweep.yaml").touch()
    assert RunFolder(tmp_path).require().root == tmp_path


def test_the_machine_is_described_in_json() -> None:
    machine = machine_description()
    assert json.loads(json.dumps(machine)) == machine
    assert machine["cores"] >= 1
    assert machine["memory_gib"] > 0
    assert machine["python"].startswith("3.")


def test_the_code_version_is_stable_within_a_checkout() -> None:
    number, _, digest = code_version().partition("+")
    assert number
    assert len(digest) == 12
    assert code_version() == f"{number}+{digest}"
