"""Decode a source into an image set: leave out classes, skip or refuse unreadable images.

Axes: N images, S pixels a side.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int64

from common.errors import DataError
from trainables.data.class_names import clean_class_name
from trainables.data.digests import DIGEST_BYTES, pixel_digests
from trainables.data.image_set import ImageSet
from trainables.data.notes import Note
from trainables.data.pixels import DecodedBatch
from trainables.data.source_sizes import SourceFormat, SourceSizes

SAMPLE = 1000
"""Number of images whose headers are read to choose a data set's image size."""

Progress = Callable[[float, str], None]
"""A function of the finished share, in [0, 1], and a description of the step."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A data set on disk: its files, and a function that decodes them."""

    kind: str
    """The kind as named in `DatasetSpec`, e.g. `parquet`."""
    name: str
    """Display name."""
    root: Path
    files: tuple[Path, ...]
    """Every file below `root` that the contents depend on."""
    short_sides: Callable[[], list[int]]
    """Returns the shorter sides of a sample of the images, in pixels; may raise DataError."""
    read: Callable[[int], "Contents"]
    """Takes the image size (pixels a side) and returns the contents."""
    annotations: str = ""
    """Identifies what is known of the images besides the files, e.g. a hash of their groups."""
    notes: tuple[Note, ...] = ()
    """Things left out or merged while the files were listed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contents:
    """The labels of a source, and an iterator that decodes its pixels."""

    labels: Int64[np.ndarray, " N"]
    class_names: tuple[str, ...]
    is_test: Bool[np.ndarray, " N"] | None = None
    is_val: Bool[np.ndarray, " N"] | None = None
    """The source's own val split, disjoint from test."""
    groups: tuple[str, ...] | None = None
    batches: Iterator[DecodedBatch]
    """All images, in the order of the labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """The image size, and which images and classes to leave out."""

    image_size: int
    """Pixels a side, S."""
    skip_unreadable: bool = False
    """Leave out unreadable images instead of refusing the data set."""
    leave_out: tuple[str, ...] = ()
    """Names of classes to leave out."""


def decode(
    source: Source,
    options: DecodeOptions,
    allocate: Callable[[tuple[int, ...]], np.ndarray],
    progress: Progress | None = None,
) -> ImageSet:
    """Decode a source into an array of shape [N, S, S, 3] made by `allocate`.

    If images are skipped, the returned set holds only the first rows of the array. `progress`
    is called after every batch.

    Raises:
        DataError: images cannot be decoded, test and train have different classes, or
            `leave_out` names an unknown class.
    """
    contents = source.read(options.image_size)
    chosen = _chosen(contents, options.leave_out)
    _check_own_test(contents, chosen)
    total, size = len(chosen), options.image_size
    images = allocate((int(chosen.sum()), size, size, 3))
    digests = np.zeros((len(images), DIGEST_BYTES), np.uint8)
    broken: dict[int, str] = {}
    formats: Counter[SourceFormat] = Counter()
    seen = filled = 0
    for batch in contents.batches:
        good = chosen[seen : seen + len(batch.images)].copy()
        for i, name in batch.broken.items():
            if good[i]:
                broken[seen + i] = name
                good[i] = False
        if not broken or options.skip_unreadable:
            end = filled + int(good.sum())
            images[filled:end] = batch.images[good]
            known = pixel_digests(batch.images) if batch.digests is None else batch.digests
            digests[filled:end] = known[good]
            filled = end
            kept = itertools.compress(batch.formats, good)
            formats.update(source_format for source_format in kept if source_format is not None)
        seen += len(batch.images)
        if progress is not None:
            progress(seen / total, f"{seen:,} of {total:,} images decoded")
    if seen != total:
        raise DataError(f"{source.root} has {seen} images for {total} labels; check its files")
    if broken and (not options.skip_unreadable or not filled):
        raise DataError(_unreadable(list(broken.values()), total))
    chosen[list(broken)] = False
    pixels = images[:filled], digests[:filled]
    return _image_set(source.name, pixels, contents, chosen, options, broken, formats)


def evenly(items: Sequence[Item], count: int = SAMPLE) -> list[Item]:
    """Return at most `count` of the items, evenly spaced, including the first."""
    if len(items) <= count:
        return [*items]
    return [items[i * len(items) // count] for i in range(count)]


def _chosen(contents: Contents, leave_out: tuple[str, ...]) -> np.ndarray:
    """Return a mask of the images whose class is not left out, bool [N]."""
    leave_out = tuple(clean_class_name(name) for name in leave_out)
    unknown = [name for name in leave_out if name not in contents.class_names]
    if unknown:
        raise DataError(
            f"leave_out names {unknown[0]!r}, which is not a class; "
            f"classes: {_listing(contents.class_names)}"
        )
    kept = [name for name in contents.class_names if name not in leave_out]
    if len(kept) < 2:
        raise DataError(f"there must be two or more distinct classes, got {kept}")
    dropped = [contents.class_names.index(name) for name in leave_out]
    chosen: np.ndarray = ~np.isin(contents.labels, dropped)
    return chosen


def _check_own_test(contents: Contents, chosen: np.ndarray) -> None:
    """Refuse classes that occur only in the data set's own test split, or only outside it."""
    if contents.is_test is None:
        return
    names = np.array(contents.class_names)
    in_train = set(names[contents.labels[chosen & ~contents.is_test]].tolist())
    in_test = set(names[contents.labels[chosen & contents.is_test]].tolist())
    if in_train != in_test:
        only = [
            f"{_listing(sorted(classes))} only in {split}"
            for classes, split in ((in_train - in_test, "train"), (in_test - in_train, "test"))
            if classes
        ]
        raise DataError(
            f"train and test have different classes: {'; '.join(only)}; give them the same "
            "classes, or list these in dataset.leave_out"
        )


def _unreadable(names: list[str], total: int) -> str:
    return (
        f"{len(names)} of {total} images cannot be read: {_listing(names)}; replace or remove "
        "them, or skip them with --skip-unreadable"
    )


def _listing(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _image_set(
    name: str,
    pixels: tuple[np.ndarray, np.ndarray],
    contents: Contents,
    chosen: np.ndarray,
    options: DecodeOptions,
    broken: Mapping[int, str],
    formats: Mapping[SourceFormat, int],
) -> ImageSet:
    """Return the decoded images and their digests, with the remaining classes renumbered."""
    left_out = {clean_class_name(name) for name in options.leave_out}
    classes = [i for i, name in enumerate(contents.class_names) if name not in left_out]
    groups = contents.groups
    is_val = None if contents.is_val is None else contents.is_val[chosen]
    return ImageSet(
        name=name,
        images=pixels[0],
        labels=np.searchsorted(classes, contents.labels[chosen]),
        class_names=tuple(contents.class_names[i] for i in classes),
        is_test=None if contents.is_test is None else contents.is_test[chosen],
        is_val=None if is_val is None or not is_val.any() else is_val,
        groups=None if groups is None else tuple(groups[i] for i in np.flatnonzero(chosen)),
        digests=pixels[1],
        skipped=tuple(broken.values()),
        resized_from=SourceSizes.from_counts(formats) if formats else None,
    )
