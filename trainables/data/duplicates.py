"""Count images that occur more than once in a data set.

Axes: N images, S pixels a side. Two images are copies if all their pixels are equal after
decoding and resizing.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from trainables.data.image_set import ImageSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Counts of exact copies in a data set."""

    groups: int
    """Groups of two or more equal images."""
    images: int
    """Images that are copies of an earlier one."""
    across_test: int
    """Images outside the data set's own test split that have a copy in it; 0 without that split."""
    conflicting_labels: int
    """Groups of equal images with different labels."""


def find_duplicates(images: ImageSet) -> Duplicates:
    """Count exact copies in O(N·S²) time, with 16 bytes of memory an image.

    Nothing is removed here; `trainables.data.splits.make_splits` leaves out training images that
    have a copy in test.
    """
    digests = pixel_digests(images.images)
    _, group, sizes = np.unique(digests, return_inverse=True, return_counts=True)
    lowest = np.full(len(sizes), np.iinfo(np.int64).max)
    highest = np.full(len(sizes), -1)
    np.minimum.at(lowest, group, images.labels)
    np.maximum.at(highest, group, images.labels)
    across = 0
    if images.is_test is not None:
        in_test = np.zeros(len(sizes), np.bool_)
        in_test[group[images.is_test]] = True
        across = int((in_test[group] & ~images.is_test).sum())
    return Duplicates(
        groups=int((sizes > 1).sum()),
        images=len(images) - len(sizes),
        across_test=across,
        conflicting_labels=int((lowest < highest).sum()),
    )


def pixel_digests(images: UInt8[np.ndarray, "N S S 3"]) -> np.ndarray:
    """Return a digest of 16 bytes per image, dtype V16 [N]; equal images have equal digests."""
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
    # Not dtype S16, which would drop a final zero byte.
    return np.array(digests, "V16")
