"""Read and write JSON, arrays and bytes: written files are whole or absent, damage is an error."""

import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tokenize import TokenError
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from common.errors import RunError, SpecError
from common.parsing import from_mapping
from common.syncing import make_folder, sync_file, sync_folder

T = TypeVar("T")

NO_FILES: Mapping[str, bytes] = MappingProxyType({})


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        RunError: the file is missing, unreadable, damaged or not an object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path} does not exist") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: expected an object, got {type(value).__name__}")
    return value


def read_versioned(cls: type[T], path: Path, *, schema: int) -> T:
    """Return the dataclass stored in a JSON file of this `schema`.

    Raises:
        RunError: the file is missing or damaged, or has another schema.
    """
    mapping = read_json(path)
    if mapping.get("schema") != schema:
        raise RunError(f"{path}: schema {mapping.get('schema')!r}, this version reads {schema}")
    try:
        return from_mapping(cls, mapping, where=str(path))
    except SpecError as error:
        raise RunError(f"{error}; the file is damaged, or of another version") from None


def write_json_once(
    path: Path,
    value: Mapping[str, Any],
    *,
    beside: Mapping[str, bytes] = NO_FILES,
    after: Callable[[], object] | None = None,
) -> None:
    """Write a JSON file once; writing the same content again does nothing.

    The files `beside` it are written before it gets its name; `after` as in `write_files`.

    Raises:
        RunError: the file exists with other content.
    """
    data = dump_json(value).encode()
    if path.exists():
        if path.read_bytes() == data:
            return
        raise RunError(
            f"{path} is already written, with other content, and records are write-once; "
            "use another run name"
        )
    write_files(path.parent, {**beside, path.name: data}, after=after)


def dump_json(value: Mapping[str, Any]) -> str:
    """Return indented JSON with a final newline; NaN and infinity raise ValueError."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def dump_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a header; a pair becomes two columns, None an empty cell.

    The columns of a pair `x` are `x_low` and `x_high`. All rows have the first row's keys.
    """
    flat = [
        {
            column: cell
            for key, value in row.items()
            for column, cell in (
                zip((f"{key}_low", f"{key}_high"), value, strict=True)
                if isinstance(value, list | tuple)
                else [(key, value)]
            )
        }
        for row in rows
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(flat[0]) if flat else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename."""
    write_files(path.parent, {path.name: data})


def write_files(
    folder: Path, files: Mapping[str, bytes], *, after: Callable[[], object] | None = None
) -> None:
    """Write files into one folder, each whole or not at all, and wait once for all of them.

    They are written under temporary names, synced at the same time, which costs a file system with
    a journal little more than one sync (benchmark in results/cluster/README.md), and renamed in
    this order; then the folder is synced. No file gets its name before `after`, which runs beside
    the syncs, has returned.

    Raises:
        OSError: a file cannot be written. Existing files are unchanged, unless a rename failed.
    """
    made = make_folder(folder)
    temporary: list[Path] = []
    try:
        for name, data in files.items():
            handle, path = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
            temporary.append(Path(path))
            with os.fdopen(handle, "wb") as file:
                os.fchmod(handle, 0o644)
                file.write(data)
        syncs: list[Callable[[], object]] = [partial(sync_file, each) for each in temporary]
        syncs += [partial(sync_folder, new.parent) for new in made]
        if after is not None:
            syncs.append(after)
        _call_all(syncs)
        for each, name in zip(temporary, files, strict=True):
            each.replace(folder / name)
    except BaseException:
        for each in temporary:
            each.unlink(missing_ok=True)
        raise
    sync_folder(folder)


def _call_all(actions: Sequence[Callable[[], object]]) -> None:
    """Call functions at the same time; raise the first error once all have ended."""
    if len(actions) == 1:
        actions[0]()
        return
    with ThreadPoolExecutor(len(actions)) as pool:
        futures = [pool.submit(action) for action in actions]
    for future in futures:
        future.result()


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until its content is on disk."""
    path.write_bytes(data)
    sync_file(path)


def write_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write a .npy file whole or not at all; object arrays raise ValueError."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes_atomically(path, buffer.getvalue())


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write a .npz file whole or not at all; object arrays raise ValueError."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_bytes_atomically(path, buffer.getvalue())


def read_array(path: Path) -> np.ndarray[Any, Any]:
    """Return the array in a .npy file; missing or damaged files and pickles raise RunError."""
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:
        raise RunError(f"{path} cannot be read as an array: {error}") from None


def read_arrays(
    path: Path, *, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, np.ndarray[Any, Any]]:
    """Read arrays of a .npz file by name; pickled objects are refused, other entries ignored.

    Raises:
        RunError: the file is missing, no archive or damaged, or a required array is missing.
    """
    try:
        # Opened here, because np.load leaves a file open that turns out to be no archive.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is not an archive")
            for key in required:
                if key not in archive:
                    raise ValueError(f"the array {key!r} is missing; it holds {archive.files}")
            arrays = {key: archive[key] for key in (*required, *optional) if key in archive}
    except Exception as error:  # damaged archives and headers raise a dozen unrelated types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path} cannot be read as .npz: {reason}") from None
    for key, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise RunError(f"{path} cannot be read as .npz: {key!r} is not an array")
    return arrays


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
