"""Read folders of images: `root/{train,val,test}/CLASS/*` or `root/CLASS/*`."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from common.errors import DataError
from trainables.data.decoding import Contents, Source, evenly
from trainables.data.image_set import clean_class_name
from trainables.data.pixels import NamedImage, decode_batches, short_sides

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
SPLITS = ("train", "val", "valid", "validation", "test")
UNREAD = (".heic", ".heif", ".avif", ".tif", ".tiff", ".jxl", ".jp2", ".dng", ".svg")
"""Suffixes of image formats that are not supported."""
NAMED_FOLDERS = 5
"""Largest number of folders that an error names."""
BATCH = 256

_Listed = tuple[str, str, str]
"""Path below the root, name of the split's folder, name of the class."""


def folder_source(root: Path) -> Source:
    """List the images of a folder; nothing is decoded yet.

    `train`, `val`, `valid` and `validation` form one pool, which `make_splits` divides. `test`
    is the data set's own test split; without it, a fifth of the pool becomes test. Each folder
    in them (or in `root`) that holds an image at any depth is a class; folders with the same
    `clean_class_name` are one class. Symbolic links are followed once. Hidden files and files
    that are not images are ignored; only the first frame of a GIF is used. Images are ordered by
    relative path.

    Raises:
        DataError: the folder is missing, or has no images or fewer than two classes; a class
            is empty, or all its images are in unsupported formats.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; give the folder of the images")
    images = _list_images(root)
    if not images:
        raise DataError(
            f"no images in {root}: expected root/CLASS/* or root/{{train,test}}/CLASS/*, "
            f"with {', '.join(SUFFIXES)}{_other_files(root)}"
        )
    class_names = tuple(sorted({name for _, _, name in images}))
    if len(class_names) < 2:
        raise DataError(
            f"only one class in {root}: {class_names[0]!r}; at least two are needed"
            f"{_nested_classes_hint(root, class_names[0])}"
        )
    _check_empty(root, class_names)
    is_test = np.array([split == "test" for _, split, _ in images])
    if is_test.all():
        raise DataError(f"{root} has images in test only; put the training images into train")
    index = {name: i for i, name in enumerate(class_names)}
    labels = np.array([index[name] for _, _, name in images], np.int64)
    named: list[NamedImage] = [(path, root / path) for path, _, _ in images]

    def read(image_size: int) -> Contents:
        batches = (named[i : i + BATCH] for i in range(0, len(named), BATCH))
        return Contents(
            labels=labels,
            class_names=class_names,
            is_test=is_test if is_test.any() else None,
            batches=decode_batches(batches, image_size),
        )

    return Source(
        kind="imagefolder",
        name=root.resolve().name,
        root=root,
        files=tuple(root / path for path, _, _ in images),
        short_sides=lambda: short_sides(evenly(named)),
        read=read,
    )


def holds_classes(root: Path) -> bool:
    """Return whether `folder_source` would find an image in `root`."""
    return any(True for split in _split_folders(root) for _ in _images(split))


def _list_images(root: Path) -> list[_Listed]:
    """Return all images, ordered by path below the root."""
    listed: list[_Listed] = []
    for split in _split_folders(root):
        name = "" if split == root else split.name
        listed += [(f"{name}/{path}" if name else path, name, c) for path, c in _images(split)]
    return sorted(listed)


def _split_folders(root: Path) -> list[Path]:
    """Return the split folders, or the root itself if it holds the classes.

    A folder named `train` that holds images but no folders is a class of that name.
    """
    named = [root / name for name in SPLITS if (root / name).is_dir()]
    return [folder for folder in named if any(True for _ in _images(folder))] or [root]


def _images(split: Path) -> Iterator[tuple[str, str]]:
    """Yield the path below the split and the class of every image."""
    for folder in _visible(str(split)):
        if folder.is_dir():
            for path in _walk(folder.path, above=(os.path.realpath(split),)):
                if path.lower().endswith(SUFFIXES):
                    yield f"{folder.name}/{path}", clean_class_name(folder.name)


def _check_empty(root: Path, class_names: Sequence[str]) -> None:
    """Refuse folders that look like classes but have no readable image.

    A folder that holds only other kinds of files, e.g. annotations, is ignored.
    """
    empty: dict[str, str] = {}
    for split in _split_folders(root):
        for folder in _visible(str(split)):
            name = clean_class_name(folder.name)
            if name in class_names or name.startswith("__") or not folder.is_dir():
                continue
            files = list(_walk(folder.path, above=()))
            kinds = Counter(Path(file).suffix.lower() for file in files)
            unread = ", ".join(f"{kinds[kind]} {kind}" for kind in UNREAD if kinds[kind])
            if unread or not files:
                empty[name] = unread or "empty"
    if empty:
        named = ", ".join(
            f"{name} ({files})" for name, files in sorted(empty.items())[:NAMED_FOLDERS]
        )
        more = f" and {len(empty) - NAMED_FOLDERS} more" if len(empty) > NAMED_FOLDERS else ""
        raise DataError(
            f"classes of {root} without a readable image: {named}{more}; put images in "
            f"{', '.join(SUFFIXES)} there, or remove these folders"
        )


def _walk(folder: str, *, above: tuple[str, ...]) -> Iterator[str]:
    """Yield every file at any depth; skip links that lead back to one of the folders `above`."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in _visible(folder):
        if entry.is_dir():
            paths = _walk(entry.path, above=(*above, real))
            yield from (f"{entry.name}/{path}" for path in paths)
        else:
            yield entry.name


def _visible(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _other_files(root: Path) -> str:
    """Return the most common suffixes of the files, for a message."""
    kinds = Counter(Path(path).suffix.lower() for path in _walk(str(root), above=()))
    kinds.pop("", None)
    most_common = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))[:3]
    listing = ", ".join(f"{count} {kind}" for kind, count in most_common)
    return f"; found {listing}" if listing else ""


def _nested_classes_hint(root: Path, name: str) -> str:
    """Return a hint if the classes are one folder lower."""
    folder = root / name
    if not folder.is_dir() or len({label for _, label in _images(folder)}) < 2:
        return ""
    return f"; the classes seem to be in {folder}: use that folder"
