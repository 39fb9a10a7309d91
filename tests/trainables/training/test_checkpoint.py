"""Checkpoints are whole or absent, whichever byte or rename the writer dies at."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RunError
from tests.faults.disk import room_for
from trainables.nets.tensor_file import bytes_to_tensors, tensors_to_bytes
from trainables.training.checkpoint import (
    STATE,
    TENSORS,
    load_checkpoint,
    save_checkpoint,
)

TENSOR_SET = {
    "weight": torch.arange(24.0).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
    "count": torch.tensor(7),
    "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3),
}
STATE_MAPPING = {"step": 3, "recipe": {"width": 4, "lr": 0.1}, "none": None}


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(torch.uint8), b.view(torch.uint8))


def test_round_trip_is_bitwise(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", TENSOR_SET, STATE_MAPPING)
    tensors, state = load_checkpoint(tmp_path / "c")
    assert state == STATE_MAPPING
    assert set(tensors) == set(TENSOR_SET)
    assert all(torch.equal(tensors[k], TENSOR_SET[k]) for k in ("weight", "count", "empty"))
    assert tensors["half"].dtype == torch.bfloat16
    assert tensors["half"][1].isnan()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


def test_a_checkpoint_is_replaced_and_an_empty_folder_filled(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    for step in (1, 2):
        save_checkpoint(tmp_path / "c", TENSOR_SET, {"step": step})
        assert load_checkpoint(tmp_path / "c")[1] == {"step": step}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


@pytest.mark.parametrize("file", [TENSORS, STATE])
def test_truncation_at_every_byte_is_detected(tmp_path: Path, file: str) -> None:
    folder = tmp_path / "c"
    save_checkpoint(folder, {"w": torch.arange(3.0)}, {"step": 1})
    whole = (folder / file).read_bytes()
    for length in range(len(whole)):
        (folder / file).write_bytes(whole[:length])
        if file == STATE and length == len(whole) - 1:  # only the final newline is missing
            assert load_checkpoint(folder)[1] == {"step": 1}
            continue
        with pytest.raises(RunError, match=r"is damaged"):
            load_checkpoint(folder)


@given(where=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_tensors_is_detected(
    tmp_path_factory: pytest.TempPathFactory, where: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flip") / "c"
    save_checkpoint(folder, {"w": torch.arange(3.0)}, {"step": 1})
    data = bytearray((folder / TENSORS).read_bytes())
    data[where % len(data)] ^= 1 << bit
    (folder / TENSORS).write_bytes(data)
    with pytest.raises(RunError, match="does not match its checksum"):
        load_checkpoint(folder)


def edit_step(header: dict[str, Any]) -> None:
    header["state"]["step"] = 2


def edit_schema(header: dict[str, Any]) -> None:
    header["schema"] = 99


def drop_state(header: dict[str, Any]) -> None:
    del header["state"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_step, "does not match its checksum"),
        (edit_schema, "schema 99, this version reads 2"),
        (drop_state, "does not match its checksum"),
    ],
)
def test_an_edited_state_is_detected(
    tmp_path: Path, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    save_checkpoint(tmp_path / "c", TENSOR_SET, STATE_MAPPING)
    path = tmp_path / "c" / STATE
    header = json.loads(path.read_text())
    edit(header)
    path.write_text(json.dumps(header))
    with pytest.raises(RunError, match=message):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("file", [TENSORS, STATE])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    save_checkpoint(tmp_path / "c", TENSOR_SET, STATE_MAPPING)
    (tmp_path / "c" / file).unlink()
    with pytest.raises(RunError, match=file):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("dies_at", ["write", "fsync", "rename"])
def test_a_failed_write_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    save_checkpoint(tmp_path / "c", TENSOR_SET, {"step": 1})

    def die(*_: object) -> None:
        raise OSError("no space left on device")

    if dies_at == "fsync":
        monkeypatch.setattr("os.fsync", die)
    elif dies_at == "rename":
        monkeypatch.setattr(Path, "replace", die)
    refused = os.strerror(errno.EFBIG)
    with (
        room_for(100 if dies_at == "write" else 1_000_000),
        pytest.raises(OSError, match=f"no space left|{refused}"),
    ):
        save_checkpoint(tmp_path / "c", TENSOR_SET, {"step": 2})
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "c")[1] == {"step": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


def test_a_failed_second_rename_restores_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "c", TENSOR_SET, {"step": 1})
    calls, replace = [], Path.replace

    def second_fails(source: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError("stale file handle")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", second_fails)
    with pytest.raises(OSError, match="stale file handle"):
        save_checkpoint(tmp_path / "c", TENSOR_SET, {"step": 2})
    assert load_checkpoint(tmp_path / "c")[1] == {"step": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c"]


def test_a_state_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path / "c", TENSOR_SET, {"loss": float("nan")})
    assert not (tmp_path / "c").exists()


def test_tensor_files_keep_their_metadata_and_refuse_garbage() -> None:
    data = tensors_to_bytes(TENSOR_SET, {"classes": "10"})
    tensors, metadata = bytes_to_tensors(data, where="x")
    assert metadata == {"classes": "10"}
    assert torch.equal(tensors["weight"], TENSOR_SET["weight"])
    assert data == tensors_to_bytes(dict(reversed(TENSOR_SET.items())), {"classes": "10"})
    for garbage in (b"", b"PK\x03\x04 not tensors at all", data[:40]):
        with pytest.raises(RunError, match="x is not a whole safetensors file"):
            bytes_to_tensors(garbage, where="x")
