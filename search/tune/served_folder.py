"""A folder of the driver's machine that every node of a cluster reads and writes through Ray.

Where nodes share no file system, checkpoints travel this way: an actor on the driver's machine
owns the folder, and Arrow's file system on the other nodes asks it. Nothing outside the folder
can be read or written. Files travel in parts, and appear under their name only when they are
complete.
"""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import ray
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType, PyFileSystem
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

PART_BYTES = 8_000_000
"""Largest number of a file's bytes in one message."""

REQUESTS_AT_A_TIME = 8
"""Requests that the actor answers in parallel."""

_UNFINISHED = ".part"
"""Suffix of a file that is still being written."""


class Entry(NamedTuple):
    """A file or folder, by its path below the served folder."""

    path: str
    is_file: bool
    bytes: int
    modified: float
    """Unix seconds."""


class FolderServer:
    """Reads and writes the files of one folder for other processes.

    Paths are relative to the folder; a leading slash is ignored. Every request is
    idempotent, because Ray may send it again after a failure.
    """

    def __init__(self, root: str | Path) -> None:
        """`root` is created if it is missing."""
        self._root = Path(root)
        self._root.mkdir(parents=True, exist_ok=True)
        self._root = self._root.resolve()

    def entry(self, path: str) -> Entry | None:
        """Return what is at `path`; None if there is nothing."""
        target = self._at(path)
        try:
            about = target.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entry(path, target.is_file(), about.st_size, about.st_mtime)

    def entries(self, path: str, *, recursive: bool) -> list[Entry]:
        """Return what is in a folder.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        found = []
        for child in sorted(self._at(path).iterdir()):
            name = f"{path.rstrip('/')}/{child.name}"
            entry = self.entry(name)
            if entry is None or name.endswith(_UNFINISHED):
                continue
            found.append(entry)
            if recursive and not entry.is_file:
                found += self.entries(name, recursive=True)
        return found

    def read(self, path: str, start: int, count: int) -> bytes:
        """Return at most `count` bytes of a file from position `start`."""
        with self._at(path).open("rb") as file:
            file.seek(start)
            return file.read(count)

    def write(self, path: str, start: int, data: bytes) -> None:
        """Write a part of a file that is not complete yet."""
        part = self._at(path + _UNFINISHED)
        part.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
            file.seek(start)
            file.write(data)

    def finish(self, path: str, size: int) -> None:
        """Give a file its name, once all its `size` bytes are written."""
        part, target = self._at(path + _UNFINISHED), self._at(path)
        if not part.exists() and target.exists():
            return  # the request is repeated
        with part.open("rb+") as file:
            file.truncate(size)
            os.fsync(file.fileno())
        part.replace(target)

    def make_folder(self, path: str) -> None:
        """Create a folder and those above it."""
        self._at(path).mkdir(parents=True, exist_ok=True)

    def remove(self, path: str) -> None:
        """Delete a file, or a folder with all that is in it; the served folder itself stays."""
        target = self._at(path)
        if target == self._root:
            for child in target.iterdir():
                self.remove(child.name)
        elif target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)

    def move(self, source: str, target: str) -> None:
        """Rename a file or folder."""
        origin, goal = self._at(source), self._at(target)
        if origin.exists() or not goal.exists():  # otherwise the request is repeated
            origin.replace(goal)

    def _at(self, path: str) -> Path:
        full = (self._root / path.lstrip("/")).resolve()
        if not full.is_relative_to(self._root):
            raise PermissionError(f"{path} is outside the served folder")
        return full


class ServedFolder(FileSystemHandler):  # type: ignore[misc]
    """Arrow's view of a `FolderServer` that runs as a Ray actor.

    Wrap it in `pyarrow.fs.PyFileSystem`. It can be pickled, as the actor's handle can.
    """

    def __init__(self, server: Any) -> None:
        """`server` is the actor's handle."""
        self._server = server

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServedFolder) and self._server == other._server

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def get_type_name(self) -> str:
        """Return the name of this kind of file system."""
        return "served-folder"

    def normalize_path(self, path: str) -> str:
        """Return the path unchanged."""
        return path

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:
        """Return what is at each path."""
        entries = [self._ask("entry", path) for path in paths]
        return [
            FileInfo(path, type=FileType.NotFound) if entry is None else _info(entry)
            for path, entry in zip(paths, entries, strict=True)
        ]

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        """Return what is in the selected folder."""
        try:
            entries = self._ask("entries", selector.base_dir, recursive=selector.recursive)
        except FileNotFoundError:
            if selector.allow_not_found:
                return []
            raise
        return [_info(entry) for entry in entries]

    def create_dir(self, path: str, recursive: bool) -> None:  # noqa: ARG002 (Arrow's interface)
        """Create a folder and those above it."""
        self._ask("make_folder", path)

    def delete_dir(self, path: str) -> None:
        """Delete a folder with all that is in it."""
        self._ask("remove", path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Delete all that is in a folder."""
        for info in self.get_file_info_selector(FileSelector(path, missing_dir_ok)):
            self._ask("remove", info.path)

    def delete_root_dir_contents(self) -> None:
        """Delete all that is in the served folder."""
        self._ask("remove", "")

    def delete_file(self, path: str) -> None:
        """Delete a file."""
        self._ask("remove", path)

    def move(self, src: str, dest: str) -> None:
        """Rename a file or folder."""
        self._ask("move", src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        """Copy a file."""
        with self.open_input_stream(src) as source, self.open_output_stream(dest, {}) as target:
            while part := source.read(PART_BYTES):
                target.write(part)

    def open_input_stream(self, path: str) -> pyarrow.NativeFile:
        """Return a stream that reads a file."""
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pyarrow.NativeFile:
        """Return a file to be read at any position."""
        entry = self._ask("entry", path)
        if entry is None or not entry.is_file:
            raise FileNotFoundError(path)
        return pyarrow.PythonFile(_Reader(self._ask, path, entry.bytes), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:  # noqa: ARG002
        """Return a stream that writes a file; it appears once the stream is closed."""
        return pyarrow.PythonFile(_Writer(self._ask, path), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pyarrow.NativeFile:
        """Refuse: files are written once, as a whole."""
        raise NotImplementedError("files of a served folder cannot be appended to")

    def _ask(self, name: str, *args: Any, **options: Any) -> Any:
        try:
            return ray.get(getattr(self._server, name).remote(*args, **options))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OSError):
                raise error.cause from None
            raise


class _Reader(io.RawIOBase):
    """Reads a file of the served folder in parts."""

    def __init__(self, ask: Any, path: str, size: int) -> None:
        super().__init__()
        self._ask, self._path, self._size, self._position = ask, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        parts = []
        while wanted:
            part = self._ask("read", self._path, self._position, min(wanted, PART_BYTES))
            if not part:
                break
            parts.append(part)
            self._position += len(part)
            wanted -= len(part)
        return b"".join(parts)


class _Writer(io.RawIOBase):
    """Writes a file of the served folder in parts."""

    def __init__(self, ask: Any, path: str) -> None:
        super().__init__()
        self._ask, self._path = ask, path
        self._waiting, self._sent = bytearray(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._waiting += data
        while len(self._waiting) >= PART_BYTES:
            self._send(PART_BYTES)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._send(len(self._waiting))
            self._ask("finish", self._path, self._sent)
        super().close()

    def _send(self, count: int) -> None:
        self._ask("write", self._path, self._sent, bytes(self._waiting[:count]))
        self._sent += count
        del self._waiting[:count]


@contextmanager
def served(root: Path) -> Iterator[PyFileSystem]:
    """Serve a folder of this machine until the end of the block; yield its file system.

    Ray must be running. The actor takes no core, and ends with the driver in any case.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    server: Any = (
        ray.remote(FolderServer)
        .options(
            num_cpus=0,
            max_concurrency=REQUESTS_AT_A_TIME,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=here,
        )
        .remote(str(root))
    )
    try:
        yield PyFileSystem(ServedFolder(server))
    finally:
        ray.kill(server)


def _info(entry: Entry) -> FileInfo:
    return FileInfo(
        entry.path,
        type=FileType.File if entry.is_file else FileType.Directory,
        size=entry.bytes if entry.is_file else None,
        mtime=entry.modified,
    )
