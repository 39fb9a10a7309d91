"""Decode a source into an image set: leave out classes, skip or refuse unreadable images.

Axes: N images, S pixels a side.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int64

from common.errors import DataError
from trainables.data.class_names import clean_class_name
from trainables.data.digests import DIGEST_BYTES, pixel_digests
from trainables.data.duplicate_notes import duplicate_notes
from trainables.data.grey_levels import GreyLevels
from trainables.data.image_set import ImageSet, LargeCopies
from trainables.data.notes import Note, listing
from trainables.data.observations import LARGEST, Observations
from trainables.data.pixels import DecodedBatch
from trainables.data.resizing import Resizing
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
    read: Callable[[Resizing], "Contents"]
    """Takes the size and rule of the squares and returns the contents."""
    square: bool = False
    """True if all images are known to be square."""
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
    """The squares that images become, and which images and classes to leave out."""

    resizing: Resizing
    skip_unreadable: bool = False
    """Leave out unreadable images instead of refusing the data set."""
    leave_out: tuple[str, ...] = ()
    """Names of classes to leave out."""


def decode(
    source: Source,
    options: DecodeOptions,
    allocate: Callable[[str, tuple[int, ...]], np.ndarray],
    progress: Progress | None = None,
) -> ImageSet:
    """Decode a source into arrays made by `allocate`, which takes their names and shapes.

    Grey images of more than 8 bits are scaled by one range for the whole source, which is known
    only after decoding (see trainables/data/grey_levels.py). If it differs from that in `options`,
    all images are decoded a second time.

    The arrays are `images` [N, S, S, 3] and, if the resizing asks for larger copies, `large`
    [N, W, W, 3]. If images are skipped, the returned set holds only the first rows. It holds no
    copies that would equal the images. `progress` is called after every batch.

    Raises:
        DataError: images cannot be decoded, train lacks a class that its own val or test has, or
            `leave_out` names an unknown class.
    """
    decoded, levels = _decode(source, options, allocate, progress)
    if levels != options.resizing.levels:
        resizing = replace(options.resizing, levels=levels)
        decoded, _ = _decode(source, replace(options, resizing=resizing), allocate, progress)
    return decoded


def _decode(
    source: Source,
    options: DecodeOptions,
    allocate: Callable[[str, tuple[int, ...]], np.ndarray],
    progress: Progress | None,
) -> tuple[ImageSet, GreyLevels]:
    """Decode a source once; return also the ranges that its deep grey images should have."""
    contents = source.read(options.resizing)
    chosen = _chosen(contents, options.leave_out)
    _check_own_splits(contents, chosen)
    total = len(chosen)
    arrays = _Arrays(int(chosen.sum()), options.resizing, allocate)
    broken: dict[int, str] = {}
    too_large: list[str] = []
    seen = 0
    for batch in contents.batches:
        good = chosen[seen : seen + len(batch.images)].copy()
        for i, name in batch.broken.items():
            if good[i]:
                broken[seen + i] = name
                good[i] = False
                if i in batch.too_large:
                    too_large.append(name)
        if not broken or options.skip_unreadable:
            arrays.add(batch, good)
        seen += len(batch.images)
        if progress is not None:
            progress(seen / total, f"{seen:,} of {total:,} images decoded")
    if seen != total:
        raise DataError(f"{source.root} has {seen} images for {total} labels; check its files")
    if broken and (not options.skip_unreadable or not arrays.filled):
        raise DataError(_unreadable(list(broken.values()), total, too_large))
    chosen[list(broken)] = False
    images = _image_set(source.name, arrays, contents, chosen, options, broken)
    notes = (
        *arrays.observations.notes(unreadable=broken.values(), too_large=too_large),
        *duplicate_notes(images.pixel_keys, images.labels, images.is_test, arrays.name_of),
    )
    return replace(images, notes=notes), arrays.observations.levels


class _Arrays:
    """The pixels of a source, filled batch by batch."""

    def __init__(
        self, count: int, resizing: Resizing, allocate: Callable[[str, tuple[int, ...]], np.ndarray]
    ) -> None:
        size, crop_size = resizing.size, resizing.crop_size
        self.filled = 0
        self.formats: Counter[SourceFormat] = Counter()
        self.observations = Observations()
        self._names: list[str] = []
        self._images = allocate("images", (count, size, size, 3))
        self._digests = np.zeros((count, DIGEST_BYTES), np.uint8)
        self._large: np.ndarray | None = None
        if crop_size:
            self._large = allocate("large", (count, crop_size, crop_size, 3))
        self._aspects = np.ones(count, np.float32)

    def add(self, batch: DecodedBatch, good: np.ndarray) -> None:
        """Add the images that the mask `good` marks."""
        part = slice(self.filled, self.filled + int(good.sum()))
        self._images[part] = batch.images[good]
        known = pixel_digests(batch.images) if batch.digests is None else batch.digests
        self._digests[part] = known[good]
        if self._large is not None and batch.large is not None and batch.aspects is not None:
            self._large[part], self._aspects[part] = batch.large[good], batch.aspects[good]
        self._names += itertools.compress(batch.names, good)
        for name, observed in itertools.compress(
            zip(batch.names, batch.observed, strict=True), good
        ):
            self.observations.add(name, observed)
        kept = itertools.compress(batch.formats, good)
        self.formats.update(source_format for source_format in kept if source_format is not None)
        self.filled = part.stop

    def name_of(self, index: int) -> str:
        """Return an image's name, or its number if the source has no names."""
        return self._names[index] if index < len(self._names) else f"image {index}"

    @property
    def images(self) -> np.ndarray:
        return self._images[: self.filled]

    @property
    def digests(self) -> np.ndarray:
        return self._digests[: self.filled]

    @property
    def large(self) -> LargeCopies | None:
        """The larger copies; None if there are none, or if they equal the images."""
        square = all(width == height for width, height, _ in self.formats)
        if self._large is None or (square and self._large.shape[1] == self._images.shape[1]):
            return None
        return LargeCopies(pixels=self._large[: self.filled], aspects=self._aspects[: self.filled])


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
            f"classes: {listing(contents.class_names)}"
        )
    kept = [name for name in contents.class_names if name not in leave_out]
    if len(kept) < 2:
        raise DataError(f"there must be two or more distinct classes, got {kept}")
    dropped = [contents.class_names.index(name) for name in leave_out]
    chosen: np.ndarray = ~np.isin(contents.labels, dropped)
    return chosen


def _check_own_splits(contents: Contents, chosen: np.ndarray) -> None:
    """Refuse classes that occur in the data set's own val or test split but not in train.

    Classes without test images are only warned of, when the set is divided.
    """
    names = np.array(contents.class_names)
    train = chosen.copy()
    for own in (contents.is_test, contents.is_val):
        if own is not None:
            train &= ~own
    in_train = set(names[contents.labels[train]].tolist())
    only = [
        f"{listing(sorted(classes))} only in {split}"
        for split, own in (("test", contents.is_test), ("val", contents.is_val))
        if own is not None
        and (classes := set(names[contents.labels[chosen & own]].tolist()) - in_train)
    ]
    if only:
        raise DataError(
            f"train lacks classes that other splits have: {'; '.join(only)}; add images of them to "
            "train, rename their folders if they are misspelled, or list them in dataset.leave_out"
        )


def _unreadable(names: list[str], total: int, too_large: Sequence[str]) -> str:
    huge = f" ({len(too_large)} have more than {LARGEST:,} pixels)" if too_large else ""
    return (
        f"{len(names)} of {total} images cannot be read{huge}: {listing(names)}; replace or remove "
        "them, or skip them with --skip-unreadable"
    )


def _image_set(
    name: str,
    arrays: _Arrays,
    contents: Contents,
    chosen: np.ndarray,
    options: DecodeOptions,
    broken: Mapping[int, str],
) -> ImageSet:
    """Return the decoded images and their digests, with the remaining classes renumbered."""
    left_out = {clean_class_name(name) for name in options.leave_out}
    classes = [i for i, name in enumerate(contents.class_names) if name not in left_out]
    groups = contents.groups
    is_val = None if contents.is_val is None else contents.is_val[chosen]
    return ImageSet(
        name=name,
        images=arrays.images,
        labels=np.searchsorted(classes, contents.labels[chosen]),
        class_names=tuple(contents.class_names[i] for i in classes),
        is_test=None if contents.is_test is None else contents.is_test[chosen],
        is_val=None if is_val is None or not is_val.any() else is_val,
        groups=None if groups is None else tuple(groups[i] for i in np.flatnonzero(chosen)),
        digests=arrays.digests,
        skipped=tuple(broken.values()),
        resized_from=SourceSizes.from_counts(arrays.formats) if arrays.formats else None,
        resize=options.resizing.rule,
        grey_levels=options.resizing.levels,
        large=arrays.large,
    )
