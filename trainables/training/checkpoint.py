"""Checkpoints: folders with tensors (safetensors) and state (JSON), written atomically.

`state.json` holds the SHA-256 of `tensors.safetensors` and of its own content, so a torn,
truncated or altered checkpoint is an error; a training never resumes silently from wrong
weights. Nothing is pickled.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from common.errors import RunError
from common.files import dump_json, read_json, write_synced
from common.syncing import sync_folder
from trainables.nets.tensor_file import bytes_to_tensors, tensors_to_bytes

SCHEMA = 2
"""2: the optimizer's state is stored by parameter name; Muon leaves out the classifier."""
TENSORS = "tensors.safetensors"
STATE = "state.json"


def save_checkpoint(
    folder: str | Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Write a checkpoint through a temporary folder and a rename.

    An existing checkpoint at `folder` is replaced. A reader sees the old checkpoint, the new one
    or, for the moment between two renames, none, but never a mixture. `state` must be plain JSON.
    Tensors may be on any device and in any memory format.
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
        write_synced(temporary / TENSORS, data)
        write_synced(temporary / STATE, dump_json(header).encode())
        sync_folder(temporary)
        _replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(folder.parent)


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the state of a checkpoint.

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


def _digest(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


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
