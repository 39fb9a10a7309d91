"""List every file below a folder once, with its kind; nothing is decoded."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from common.errors import DataError
from trainables.data.image_formats import FileType, file_type

Parts = tuple[str, ...]
"""Names of the folders below the root, and of the file."""


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file below the root."""

    parts: Parts
    type: FileType
    hidden: bool
    """Its name, or that of a folder it lies in, starts with a dot."""

    @property
    def path(self) -> str:
        """Return the path below the root, with slashes."""
        return "/".join(self.parts)

    @property
    def is_image(self) -> bool:
        """Return whether it is a visible image that can be read."""
        return self.type.kind == "image" and not self.hidden


@dataclass(frozen=True, slots=True)
class FolderTree:
    """All files and visible folders below a root, ordered by path."""

    files: tuple[TreeFile, ...]
    folders: tuple[Parts, ...]

    @property
    def images(self) -> tuple[TreeFile, ...]:
        """Return the visible images that can be read."""
        return tuple(file for file in self.files if file.is_image)


def list_folder(root: str) -> FolderTree:
    """List a folder. Symbolic links are followed, but not back to a folder they lie in.

    Raises:
        OSError: a folder cannot be listed.
    """
    files: list[TreeFile] = []
    folders: list[Parts] = []
    for entry in _walk(root, (), above=(), hidden=False):
        if entry.is_folder:
            if not entry.hidden:
                folders.append(entry.parts)
        else:
            own = FileType("other", entry.parts[-1]) if entry.hidden else entry.type
            files.append(TreeFile(entry.parts, own, entry.hidden))
    return FolderTree(tuple(sorted(files, key=lambda file: file.path)), tuple(sorted(folders)))


def image_files(
    paths: Iterable[str | Path],
    *,
    on_unreadable: Callable[[Path, DataError], None] | None = None,
) -> list[Path]:
    """Return files as they are given, and for a folder all visible images below it, by path.

    Images in a format that is not read here are included, so that their reader can name them.
    `on_unreadable` takes a folder that raises otherwise, and the error; the rest is returned.

    Raises:
        DataError: a folder holds no image, or cannot be listed.
    """
    images: list[Path] = []
    for path in map(Path, paths):
        try:
            images += _images_below(path) if path.is_dir() else [path]
        except DataError as error:
            if on_unreadable is None:
                raise
            on_unreadable(path, error)
    return images


def holds_images(root: str) -> bool:
    """Return whether a folder below `root` holds a visible image that can be read."""
    return any(
        len(entry.parts) > 1
        and not entry.is_folder
        and not entry.hidden
        and entry.type.kind == "image"
        for entry in _walk(root, (), above=(), hidden=False)
    )


def _images_below(folder: Path) -> list[Path]:
    try:
        tree = list_folder(str(folder))
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}") from None
    found = [
        folder.joinpath(*file.parts)
        for file in tree.files
        if not file.hidden and file.type.kind != "other"
    ]
    if not found:
        raise DataError(f"{folder} holds no image, at any depth")
    return found


class _Entry(NamedTuple):
    parts: Parts
    path: str
    is_folder: bool
    hidden: bool
    special: bool
    """It is neither a file, a folder nor a link to nothing."""

    @property
    def type(self) -> FileType:
        """Return the kind of a file; its content may be read."""
        return file_type(self.path, special=self.special)


def _walk(folder: str, parts: Parts, *, above: tuple[str, ...], hidden: bool) -> Iterator[_Entry]:
    """Yield every entry below a folder."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        below = (*parts, entry.name)
        concealed = hidden or entry.name.startswith(".")
        is_folder = entry.is_dir()  # false for a link to nothing
        special = not is_folder and not entry.is_file() and os.path.exists(entry.path)  # noqa: PTH110
        yield _Entry(below, entry.path, is_folder, concealed, special)
        if is_folder:
            yield from _walk(entry.path, below, above=(*above, real), hidden=concealed)
