"""Folders of images: `root/{train,val,valid,test}/CLASS/*` or `root/CLASS/*`."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trainables.errors import DataError
from trainables.imageset import Contents, Source
from trainables.pixels import NamedImage, decode_batches, short_sides

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SPLITS = ("train", "val", "valid", "test")
LARGEST_DEFAULT = 64
"""Pixels a side: sets of larger photographs are reduced to this unless told otherwise."""
BATCH = 256


def folder_source(root: Path) -> Source:
    """List the images of a folder; nothing is decoded yet.

    `train`, `val` and `valid` are one pool, which `make_splits` divides; `test` is the
    data set's own test split. Each folder in them (or in `root`) that holds an image, at
    any depth, is a class. Hidden files and files of other kinds are ignored. The order is
    that of the relative paths.

    Raises:
        DataError: the folder is missing, or has no images or fewer than two classes.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; give the folder of the images")
    splits = _split_folders(root)
    images = [(path, split.name, name) for split in splits for path, name in _images(split)]
    images.sort(key=lambda image: image[0].relative_to(root).as_posix())
    if not images:
        raise DataError(
            f"no images in {root}: expected root/CLASS/* or root/{{train,test}}/CLASS/*, "
            f"with {', '.join(SUFFIXES)}"
        )
    class_names = tuple(sorted({name for _, _, name in images}))
    if len(class_names) < 2:
        raise DataError(f"only one class in {root}: {class_names[0]!r}; at least two are needed")
    own_test = splits != [root] and any(split == "test" for _, split, _ in images)
    if own_test and all(split == "test" for _, split, _ in images):
        raise DataError(f"{root} has images in test only; put those to learn from into train")
    index = {name: i for i, name in enumerate(class_names)}
    labels = np.array([index[name] for _, _, name in images], np.int64)
    is_test = np.array([split == "test" for _, split, _ in images]) if own_test else None
    named: list[NamedImage] = [(path.relative_to(root).as_posix(), path) for path, _, _ in images]

    def read(image_size: int | None) -> Contents:
        size = image_size or _default_size(named)
        batches = (named[i : i + BATCH] for i in range(0, len(named), BATCH))
        return Contents(
            image_size=size,
            labels=labels,
            class_names=class_names,
            is_test=is_test,
            batches=decode_batches(batches, size),
        )

    files = tuple(path for path, _, _ in images)
    name = root.resolve().name
    return Source(kind="imagefolder", name=name, root=root, files=files, read=read)


def _split_folders(root: Path) -> list[Path]:
    """The split folders, or the root itself where the classes stand in it.

    A folder named `train` that holds images but no folders is a class of that name.
    """
    named = [root / name for name in SPLITS if (root / name).is_dir()]
    return [folder for folder in named if any(_images(folder))] or [root]


def _images(split: Path) -> Iterator[tuple[Path, str]]:
    for folder in _visible(split):
        if folder.is_dir():
            yield from ((path, folder.name) for path in _below(folder))


def _below(folder: Path) -> Iterator[Path]:
    for path in _visible(folder):
        if path.is_dir():
            yield from _below(path)
        elif path.suffix.lower() in SUFFIXES:
            yield path


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _default_size(images: list[NamedImage]) -> int:
    """The median shorter side, to the nearest multiple of 8, from 8 to LARGEST_DEFAULT."""
    sides = [side for side in short_sides(images) if side]
    if not sides:
        raise DataError(
            f"none of the {len(images)} images can be read, "
            f"e.g. {', '.join(name for name, _ in itertools.islice(images, 3))}"
        )
    nearest = int(np.median(sides) / 8 + 0.5) * 8
    return min(max(nearest, 8), LARGEST_DEFAULT)
