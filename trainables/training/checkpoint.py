"""Checkpoints: a folder with tensors (safetensors) and state (JSON), whole or not at all.

`state.json` holds the SHA-256 of `tensors.safetensors` and of its own content, so a torn,
truncated or altered checkpoint is an error and never a silent start from wrong weights.
Nothing is pickled.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from common.errors import RunError
from common.files import dump_json, read_json, sync_folder

SCHEMA = 1
TENSORS = "tensors.safetensors"
STATE = "state.json"


def save_checkpoint(
    folder: str | Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Write a checkpoint through a temporary folder and a rename.

    A checkpoint that stands at `folder` already is replaced; a reader sees the old one,
    the new one or, for the moment between two renames, none, but never a mixture.
    `state` must be plain JSON. Tensors may be on any device and in any memory format.
    """
    folder = Path(folder)
    data = tensors_to_bytes(tensors)
    header = {
        "schema": SCHEMA,
        "tensors_sha256": hashlib.sha256(data).hexdigest(),
        "state_sha256": _digest(state),
        "state": dict(state),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        temporary.chmod(0o755)
        _write(temporary / TENSORS, data)
        _write(temporary / STATE, dump_json(header).encode())
        sync_folder(temporary)
        _replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(folder.parent)


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the state of a checkpoint.

    Raises:
        RunError: the checkpoint is missing, torn, altered or of an unknown schema.
    """
    folder = Path(folder)
    header = read_json(folder / STATE)
    if header.get("schema") != SCHEMA:
        raise RunError(
            f"{folder / STATE}: schema {header.get('schema')!r}, this version reads {SCHEMA}"
        )
    state = header.get("state")
    if not isinstance(state, dict) or header.get("state_sha256") != _digest(state):
        raise RunError(f"{folder / STATE} is damaged: its content does not match its checksum")
    try:
        data = (folder / TENSORS).read_bytes()
    except OSError as error:
        raise RunError(f"{folder / TENSORS} cannot be read: {error}") from None
    if header.get("tensors_sha256") != hashlib.sha256(data).hexdigest():
        raise RunError(f"{folder / TENSORS} is damaged: its content does not match its checksum")
    return bytes_to_tensors(data, where=str(folder / TENSORS))[0], state


def tensors_to_bytes(
    tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> bytes:
    """The safetensors file of `tensors`, in order of name, with texts as metadata."""
    # The format stores rows in order: channels_last is an affair of the net that loads them.
    rows = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    data: bytes = serialize_tensors(rows, metadata)
    return data


def bytes_to_tensors(data: bytes, *, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file; `where` names it for errors."""
    try:
        tensors: dict[str, Tensor] = parse_tensors(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
    except (SafetensorError, ValueError) as error:
        raise RunError(f"{where} is not a whole safetensors file: {error}") from None
    return tensors, header.get("__metadata__", {})


def _digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace_folder(source: Path, target: Path) -> None:
    if not target.exists() or not any(target.iterdir()):
        source.replace(target)  # POSIX renames over an empty folder
        return
    old = source.with_name(f"{source.name}.old")
    target.replace(old)
    try:
        source.replace(target)
    except BaseException:
        old.replace(target)
        raise
    shutil.rmtree(old)
