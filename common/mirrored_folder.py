"""A local copy of parts of a folder on another file system, kept in step by hand.

A worker without access to a run's folder pulls what it reads, works on the copy, and pushes what
it has written.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

Stamp = tuple[int, int]
"""Size and modification time of a file."""


class MirroredFolder:
    """Copies files between a folder of a file system and a local one; both have the same names."""

    def __init__(self, filesystem: FileSystem, remote: str, local: Path) -> None:
        """Nothing is copied yet."""
        self._filesystem = filesystem
        self._remote = remote.rstrip("/")
        self._local = local
        self._known: dict[str, Stamp] = {}
        """The local stamp of each file when both sides were last equal."""
        self._pulled: dict[str, Stamp] = {}
        """The remote stamp of each file when it was copied from there."""

    def pull(self, names: Iterable[str]) -> None:
        """Copy files and whole folders that are new or changed on the other side.

        Missing names are passed over.

        Raises:
            OSError: a file cannot be read there or written here.
        """
        for name in names:
            for info in self._remote_files(name):
                path = info.path.removeprefix(self._remote).lstrip("/")
                version = (info.size, info.mtime_ns or 0)
                if self._pulled.get(path) == version:
                    continue
                target = self._local / path
                target.parent.mkdir(parents=True, exist_ok=True)
                copy_files(
                    info.path,
                    str(target),
                    source_filesystem=self._filesystem,
                    destination_filesystem=LocalFileSystem(),
                )
                self._known[path], self._pulled[path] = _stamp(target), version

    def push(self, names: Iterable[str]) -> None:
        """Copy new and changed files to the other side, the oldest first.

        So a file that marks others as complete, which is written last, also arrives last. Remote
        copies of files that were deleted locally are deleted.

        Raises:
            OSError: a file cannot be written there.
        """
        names = tuple(names)
        present = {path: _stamp(self._local / path) for name in names for path in self._files(name)}
        for path, stamp in sorted(present.items(), key=lambda item: item[1][1]):
            if self._known.get(path) == stamp:
                continue
            place = f"{self._remote}/{path}"
            self._filesystem.create_dir(place.rpartition("/")[0], recursive=True)
            copy_files(
                str(self._local / path),
                place,
                source_filesystem=LocalFileSystem(),
                destination_filesystem=self._filesystem,
            )
            self._known[path] = stamp
        for path in [path for path in self._known if path not in present]:
            if any(path == name or path.startswith(f"{name}/") for name in names):
                self._filesystem.delete_file(f"{self._remote}/{path}")
                del self._known[path]

    def _files(self, name: str) -> Iterator[str]:
        root = self._local / name
        found = [root] if root.is_file() else root.rglob("*")
        yield from (path.relative_to(self._local).as_posix() for path in found if path.is_file())

    def _remote_files(self, name: str) -> Iterator[FileInfo]:
        place = f"{self._remote}/{name}"
        info: FileInfo = self._filesystem.get_file_info(place)
        found = [info]
        if info.type is FileType.Directory:
            found = self._filesystem.get_file_info(FileSelector(place, recursive=True))
        yield from (entry for entry in found if entry.type is FileType.File)


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
