"""List every file below a folder once, with its kind; nothing is decoded."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

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
    for parts, path, is_folder, hidden in _walk(root, (), above=(), hidden=False):
        if is_folder:
            if not hidden:
                folders.append(parts)
        else:
            kind = FileType("other", parts[-1]) if hidden else file_type(path)
            files.append(TreeFile(parts, kind, hidden))
    return FolderTree(tuple(sorted(files, key=lambda file: file.path)), tuple(sorted(folders)))


def holds_images(root: str) -> bool:
    """Return whether a folder below `root` holds a visible image that can be read."""
    return any(
        len(parts) > 1 and not is_folder and not hidden and file_type(path).kind == "image"
        for parts, path, is_folder, hidden in _walk(root, (), above=(), hidden=False)
    )


def _walk(
    folder: str, parts: Parts, *, above: tuple[str, ...], hidden: bool
) -> Iterator[tuple[Parts, str, bool, bool]]:
    """Yield the parts, path, whether it is a folder and whether it is hidden, of every entry."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        below = (*parts, entry.name)
        concealed = hidden or entry.name.startswith(".")
        is_folder = entry.is_dir()  # false for a link to nothing
        yield below, entry.path, is_folder, concealed
        if is_folder:
            yield from _walk(entry.path, below, above=(*above, real), hidden=concealed)
