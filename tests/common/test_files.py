"""Written files are whole or absent, and damaged files are clear errors."""

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from common.errors import RunError
from common.files import (
    dump_csv,
    dump_json,
    file_sha256,
    read_array,
    read_json,
    write_array,
    write_arrays,
    write_bytes_atomically,
    write_json_once,
)
from tests.faults.disk import room_for


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"absent\.json does not exist"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(RunError, match="cannot be read"):
        read_json(tmp_path)


def test_nan_is_not_written_as_json(tmp_path: Path) -> None:
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
def test_json_round_trips(tmp_path: Path, value: dict[str, Any]) -> None:
    path = tmp_path / "value.json"
    path.unlink(missing_ok=True)
    write_json_once(path, value)
    assert read_json(path) == value
    assert path.read_text().endswith("}\n")


@given(arrays(np.float32, array_shapes(max_dims=3, max_side=5)))
def test_arrays_round_trip(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    write_array(tmp_path / "a.npy", array)
    loaded = read_array(tmp_path / "a.npy")
    assert loaded.dtype == array.dtype
    np.testing.assert_array_equal(loaded, array)


def test_object_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_array(tmp_path / "a.npy", np.array([{}]))
    np.save(tmp_path / "b.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(RunError, match=r"b\.npy cannot be read as an array"):
        read_array(tmp_path / "b.npy")


def test_a_damaged_array_raises_run_error_or_is_read(tmp_path: Path) -> None:
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


def test_an_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    with pytest.raises(RunError, match=r"a\.npz cannot be read as an array"):
        read_array(tmp_path / "a.npz")


def test_named_arrays_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.npz"
    write_arrays(path, {"path": np.arange(3), "val": np.eye(2)})
    with np.load(path, allow_pickle=False) as loaded:
        np.testing.assert_array_equal(loaded["path"], np.arange(3))
        np.testing.assert_array_equal(loaded["val"], np.eye(2))
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_arrays(path, {"val": np.array([{}])})


def test_a_refused_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes_atomically(path, b"old")
    with room_for(2), pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failed_sync_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes_atomically(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_files_are_readable_by_other_users(tmp_path: Path) -> None:
    write_bytes_atomically(tmp_path / "deep" / "file", b"x")
    assert stat.S_IMODE((tmp_path / "deep" / "file").stat().st_mode) == 0o644


def test_checksums_are_sha256(tmp_path: Path) -> None:
    sha256_of_test = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    write_bytes_atomically(tmp_path / "test", b"test")
    assert file_sha256(tmp_path / "test") == sha256_of_test


def test_csv_has_two_columns_for_a_pair_and_empty_cells_for_none() -> None:
    rows = [{"a": 1, "b": (0.5, 2.0), "c": None}, {"a": "x,y", "b": [1, 2], "c": True}]
    assert dump_csv(rows) == 'a,b_low,b_high,c\n1,0.5,2.0,\n"x,y",1,2,True\n'
    assert dump_csv([]) == "\n"
