"""Images that stand in a data set more than once.

Axes: N images, S pixels a side. Two images are copies of each other if all their decoded
pixels are equal: what differs after resizing by a single value is not found here.
"""

from dataclasses import dataclass

import numpy as np

from trainables.data.image_set import ImageSet, pixel_digests


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """What a data set holds more than once, in counts."""

    groups: int
    """Groups of two or more equal images."""
    images: int
    """Images that are copies of an earlier one."""
    across_test: int
    """Images outside the data set's own test split that have a copy in it; 0 without one."""
    conflicting_labels: int
    """Groups whose images do not all have the same label."""


def find_duplicates(images: ImageSet) -> Duplicates:
    """Count exact copies, in O(N·S²) time and 16 bytes of memory an image.

    Nothing is left out of the set: which copies would leak from test into training, and are
    therefore in no split, is decided by `trainables.data.splits.make_splits`.
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
