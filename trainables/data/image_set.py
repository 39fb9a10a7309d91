"""A labelled set of images, decoded, and what identifies it.

Axes: N images, S pixels a side, 3 channels (RGB), K classes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from common.errors import DataError
from trainables.data.pixels import Decoded
from trainables.data.source_sizes import Originals

CHUNK_BYTES = 1 << 24
"""Pixels hashed at a time, so that a memory-mapped set need not fit into memory."""
SAMPLE = 1000
"""Images that are looked at for a data set's size."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSet:
    """All images of a data set, in a fixed order. Treat the arrays as read-only.

    Raises:
        DataError: an array has another shape or dtype, a label is out of range, or there
            are fewer than two classes.
    """

    name: str
    images: UInt8[np.ndarray, "N S S 3"]
    """May be memory-mapped."""
    labels: Int64[np.ndarray, " N"]
    """Indices into `class_names`."""
    class_names: tuple[str, ...]
    is_test: Bool[np.ndarray, " N"] | None = None
    """The data set's own test split; None if it has none."""
    groups: tuple[str, ...] | None = None
    """What must not be divided, e.g. a patient; an empty text is an image on its own."""
    fingerprint: str = ""
    """Identifies the content; computed if it is not given."""
    skipped: tuple[str, ...] = ()
    """Files (or rows) that cannot be read and were left out; no part of the content."""
    resized_from: Originals | None = None
    """What the images were before they became S × S, no part of the content; None: the same."""

    def __post_init__(self) -> None:
        """Check every field against the others."""
        _check_images(self.images)
        count = len(self.images)
        _check_labels(self.labels, count, self.class_names)
        if self.is_test is not None:
            _check_test(self.is_test, count)
        if self.groups is not None and len(self.groups) != count:
            raise DataError(f"groups must have one entry an image: {len(self.groups)} for {count}")
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", fingerprint_of(self))

    def __len__(self) -> int:
        """The number of images, N."""
        return len(self.images)

    @property
    def image_size(self) -> int:
        """Pixels a side, S."""
        return int(self.images.shape[1])

    @property
    def originals(self) -> Originals:
        """What the images were before they became S × S."""
        return self.resized_from or as_they_are(self.images)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contents:
    """A data set about to be decoded: all but its pixels, and an iterator over those."""

    labels: Int64[np.ndarray, " N"]
    class_names: tuple[str, ...]
    is_test: Bool[np.ndarray, " N"] | None = None
    groups: tuple[str, ...] | None = None
    batches: Iterator[Decoded]
    """All images, in the order of the labels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A data set on disk: what it consists of, and how to decode it."""

    kind: str
    """What the data set is in the terms of `DatasetSpec`."""
    name: str
    """What to call it."""
    root: Path
    files: tuple[Path, ...]
    """Every file that the contents depend on, below `root`."""
    short_sides: Callable[[], list[int]]
    """The shorter sides of a sample of its images, in pixels; may raise DataError."""
    read: Callable[[int], Contents]
    """Takes the wanted image size."""


def fingerprint_of(images: ImageSet) -> str:
    """`sha256:` and 16 hex digits over pixels, labels, class names, test split and groups.

    The order of the images counts; the name and the place of the set do not.
    """
    about = {
        "shape": images.images.shape,
        "class_names": images.class_names,
        "groups": images.groups,
        "has_test": images.is_test is not None,
    }
    digest = hashlib.sha256(json.dumps(about).encode())
    digest.update(images.labels.astype("<i8").tobytes())
    if images.is_test is not None:
        digest.update(images.is_test.tobytes())
    rows = max(1, CHUNK_BYTES // images.images[0].nbytes)
    for start in range(0, len(images), rows):
        digest.update(np.ascontiguousarray(images.images[start : start + rows]).data)
    return f"sha256:{digest.hexdigest()[:16]}"


def as_they_are(images: UInt8[np.ndarray, "N H W 3"]) -> Originals:
    """Of RGB images of one size that nobody has resized."""
    count, height, width = images.shape[:3]
    return Originals.of({(width, height, "RGB"): count})


def evenly(items: Sequence[Item], count: int = SAMPLE) -> list[Item]:
    """At most `count` of the items, evenly spaced, the first among them."""
    return (
        [items[i * len(items) // count] for i in range(count)] if len(items) > count else [*items]
    )


def pixel_digests(images: UInt8[np.ndarray, "N S S 3"]) -> np.ndarray:
    """16 bytes for each image, dtype V16 [N], equal for images whose pixels are all equal."""
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
    # Not dtype S16, which would drop a final zero byte.
    return np.array(digests, "V16")


def _check_images(images: np.ndarray) -> None:
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise DataError(f"images must be uint8 [N, S, S, 3], got {images.dtype} {list(shape)}")
    if 0 in shape:
        raise DataError(f"there must be at least one image, got {list(shape)}")


def _check_labels(labels: np.ndarray, count: int, class_names: tuple[str, ...]) -> None:
    if labels.dtype != np.int64 or labels.shape != (count,):
        raise DataError(f"labels must be int64 [{count}], got {labels.dtype} {list(labels.shape)}")
    twice = [name for name, times in Counter(class_names).items() if times > 1]
    if len(class_names) < 2 or twice:
        found = f"{twice[0]!r} more than once" if twice else f"{list(class_names)}"
        raise DataError(f"there must be two or more distinct classes, got {found}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(class_names):
        wrong = low if low < 0 else high
        raise DataError(f"labels must lie in 0 … {len(class_names) - 1}, got {wrong}")


def _check_test(is_test: np.ndarray, count: int) -> None:
    if is_test.dtype != np.bool_ or is_test.shape != (count,):
        raise DataError(f"is_test must be bool [{count}], got {is_test.dtype} {is_test.shape}")
    if is_test.all() or not is_test.any():
        part = "every image" if is_test.all() else "no image"
        raise DataError(f"is_test marks {part}; use None for a set without a test split")
