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


OnError = Callable[[str, OSError], None]
"""Takes the path of a folder that cannot be listed, or of a link that cannot be followed."""


def list_folder(root: str, *, on_error: OnError | None = None) -> FolderTree:
    """List a folder. Symbolic links are followed, but not back to a folder they lie in.

    With `on_error`, errors are given to it instead of raised, and listing goes on. Errors in hidden
    folders are ignored.

    Raises:
        DataError: a folder cannot be listed.
    """
    files: list[TreeFile] = []
    folders: list[Parts] = []
    for entry in _walk(root, (), above=(), hidden=False, on_error=on_error or _refuse):
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
    With `on_unreadable`, it is called with the path and the error instead of raising.

    Raises:
        DataError: a path cannot be reached, or a folder holds no image or cannot be listed.
    """

    def report(path: Path, problem: str) -> None:
        error = DataError(problem)
        if on_unreadable is None:
            raise error
        on_unreadable(path, error)

    images: list[Path] = []
    for path in map(Path, paths):
        try:
            is_folder = path.is_dir()
        except OSError as error:  # e.g. the name is too long, or a folder above may not be searched
            report(path, f"{path} cannot be read: {error.strerror}; check the path")
        else:
            images += _images_below(path, report) if is_folder else [path]
    return images


def holds_images(root: str) -> bool:
    """Return whether a folder below `root` holds a visible image that can be read."""
    return any(
        len(entry.parts) > 1
        and not entry.is_folder
        and not entry.hidden
        and entry.type.kind == "image"
        for entry in _walk(root, (), above=(), hidden=False, on_error=_refuse)
    )


def _images_below(folder: Path, report: Callable[[Path, str], None]) -> list[Path]:
    """Return the images of a folder; report what cannot be listed, or else that there is none."""
    problems: list[str] = []

    def name_unlisted(path: str, error: OSError) -> None:
        problems.append(path)
        report(Path(path), f"{path} cannot be listed: {error.strerror}; check its permissions")

    tree = list_folder(str(folder), on_error=name_unlisted)
    images = [
        folder.joinpath(*file.parts)
        for file in tree.files
        if not file.hidden and file.type.kind != "other"
    ]
    if not images and not problems:
        report(folder, f"{folder} holds no image, at any depth")
    return images


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


def _walk(
    folder: str,
    parts: Parts,
    *,
    above: tuple[str, ...],
    hidden: bool,
    on_error: OnError,
) -> Iterator[_Entry]:
    """Yield every entry below a folder; `on_error` as in `list_folder`."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        with os.scandir(folder) as entries:
            listed = list(entries)
    except OSError as error:
        _handle(error, folder, hidden=hidden, on_error=on_error)
        return
    for entry in listed:
        below = (*parts, entry.name)
        concealed = hidden or entry.name.startswith(".")
        try:
            is_folder = entry.is_dir()  # false for a link to nothing
            special = not is_folder and not entry.is_file() and os.path.exists(entry.path)  # noqa: PTH110
        except OSError as error:  # a link to itself, or into a folder that may not be searched
            _handle(error, entry.path, hidden=concealed, on_error=on_error)
            continue
        yield _Entry(below, entry.path, is_folder, concealed, special)
        if is_folder:
            yield from _walk(
                entry.path, below, above=(*above, real), hidden=concealed, on_error=on_error
            )


def _refuse(path: str, error: OSError) -> None:
    raise DataError(f"{path} cannot be listed: {error.strerror}; check its permissions")


def _handle(error: OSError, path: str, *, hidden: bool, on_error: OnError) -> None:
    if not hidden:
        on_error(path, error)
