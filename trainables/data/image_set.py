"""A labelled set of decoded images, and the fingerprint that identifies it.

Axes: N images, S pixels a side, 3 channels (RGB), K classes.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from common.errors import DataError
from trainables.data.digests import DIGEST_BYTES, as_keys, pixel_digests
from trainables.data.grey_levels import DEFAULT_LEVELS, GreyLevels
from trainables.data.notes import Note
from trainables.data.resizing import ResizeRule
from trainables.data.source_sizes import SourceSizes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LargeCopies:
    """Larger copies of the images, from which training cuts random crops."""

    pixels: UInt8[np.ndarray, "N W W 3"]
    """May be memory-mapped."""
    aspects: Float32[np.ndarray, " N"]
    """Ratio of width to height that each copy stands for, see trainables/data/resizing.py."""

    @property
    def side(self) -> int:
        """Return the pixels a side, W."""
        return int(self.pixels.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSet:
    """All images of a data set, in a fixed order. Treat the arrays as read-only.

    Raises:
        DataError: an array has the wrong shape or dtype, a label is out of range, or there
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
    is_val: Bool[np.ndarray, " N"] | None = None
    """The data set's own val split, disjoint from test; None if it has none."""
    groups: tuple[str, ...] | None = None
    """Group of each image, e.g. a patient, or an empty string; a group stays in one split."""
    digests: UInt8[np.ndarray, "N 16"] | None = None
    """Digest of each image's canonical pixels (see trainables/data/digests.py), which do not
    depend on S; computed from `images`, as if they had not been resized, if None."""
    fingerprint: str = ""
    """Identifies the content at every image size; computed if empty."""
    skipped: tuple[str, ...] = ()
    """Unreadable files (or rows) that were left out; not part of the content."""
    grey_levels: GreyLevels = DEFAULT_LEVELS
    """Ranges by which grey images of more than 8 bits were scaled; not part of the content."""
    notes: tuple[Note, ...] = ()
    """Things left out, merged or read in part; not part of the content."""
    resized_from: SourceSizes | None = None
    """Sizes before resizing, not part of the content; None if the images were not resized."""
    resize: ResizeRule = "crop"
    """The rule by which the images became square; not part of the content."""
    large: LargeCopies | None = None
    """Larger copies for random crops, not part of the content; without them the images are cropped
    themselves."""

    def __post_init__(self) -> None:
        """Check every field against the others; compute a missing fingerprint."""
        _check_images(self.images)
        count = len(self.images)
        _check_labels(self.labels, count, self.class_names)
        if self.is_test is not None:
            _check_test(self.is_test, count)
        if self.is_val is not None:
            _check_val(self.is_val, self.is_test, count)
        if self.groups is not None and len(self.groups) != count:
            raise DataError(
                f"groups must have one entry per image, got {len(self.groups)} for {count} images"
            )
        if self.large is not None:
            _check_images(self.large.pixels)
            copies, aspects = len(self.large.pixels), len(self.large.aspects)
            if copies != count or aspects != count:
                raise DataError(
                    f"large must have a copy and an aspect ratio per image, got {copies} and "
                    f"{aspects} for {count} images"
                )
        if self.digests is None:
            object.__setattr__(self, "digests", pixel_digests(self.images))
        elif self.digests.shape != (count, DIGEST_BYTES) or self.digests.dtype != np.uint8:
            raise DataError(
                f"digests must be uint8 [{count}, {DIGEST_BYTES}], got {self.digests.dtype} "
                f"{list(self.digests.shape)}"
            )
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", fingerprint_of(self))

    def __len__(self) -> int:
        """Return the number of images, N."""
        return len(self.images)

    @property
    def image_size(self) -> int:
        """Return the pixels a side, S."""
        return int(self.images.shape[1])

    @property
    def channels(self) -> int:
        """Channels of the images: 3, because every source decodes to RGB."""
        return int(self.images.shape[3])

    @property
    def nbytes(self) -> int:
        """Return the bytes of all pixels, larger copies included."""
        return self.images.nbytes + (0 if self.large is None else self.large.pixels.nbytes)

    @property
    def pixel_keys(self) -> np.ndarray:
        """Return the digests as one V16 scalar each, [N]: equal if canonical pixels are equal."""
        assert self.digests is not None, "computed on creation"
        return as_keys(self.digests)

    @property
    def source_sizes(self) -> SourceSizes:
        """Return the sizes and colour modes that the images had in their files."""
        return self.resized_from or unresized(self.images)


def fingerprint_of(images: ImageSet) -> str:
    """Return `sha256:` and 16 hex digits over digests, labels, class names, own splits and groups.

    It depends on the order of the images, but not on the size they were resized to, or on the name
    or the location of the set.
    """
    about = {
        "images": len(images),
        "class_names": images.class_names,
        "groups": images.groups,
        "has_test": images.is_test is not None,
        "has_val": images.is_val is not None,
    }
    digest = hashlib.sha256(json.dumps(about).encode())
    digest.update(images.labels.astype("<i8").tobytes())
    for own in (images.is_test, images.is_val):
        if own is not None:
            digest.update(own.tobytes())
    digest.update(images.pixel_keys.tobytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def unresized(images: UInt8[np.ndarray, "N H W 3"]) -> SourceSizes:
    """Return the source sizes of RGB images that were not resized."""
    count, height, width = images.shape[:3]
    return SourceSizes.from_counts({(width, height, "RGB"): count})


def _check_images(images: np.ndarray) -> None:
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise DataError(f"images must be uint8 [N, S, S, 3], got {images.dtype} {list(shape)}")
    if 0 in shape:
        raise DataError(f"there must be at least one image, got shape {list(shape)}")


def _check_labels(labels: np.ndarray, count: int, class_names: tuple[str, ...]) -> None:
    if labels.dtype != np.int64 or labels.shape != (count,):
        raise DataError(f"labels must be int64 [{count}], got {labels.dtype} {list(labels.shape)}")
    repeated = [name for name, times in Counter(class_names).items() if times > 1]
    if len(class_names) < 2 or repeated:
        got = f"{repeated[0]!r} more than once" if repeated else f"{list(class_names)}"
        raise DataError(f"there must be two or more distinct classes, got {got}")
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


def _check_val(is_val: np.ndarray, is_test: np.ndarray | None, count: int) -> None:
    if is_val.dtype != np.bool_ or is_val.shape != (count,):
        raise DataError(f"is_val must be bool [{count}], got {is_val.dtype} {is_val.shape}")
    if is_test is not None and (is_val & is_test).any():
        raise DataError(f"is_val and is_test both mark {int((is_val & is_test).sum())} images")
    train = ~is_val if is_test is None else ~is_val & ~is_test
    if not train.any() or not is_val.any():
        part = "every image outside test" if not train.any() else "no image"
        raise DataError(f"is_val marks {part}; use None for a set without a val split")
