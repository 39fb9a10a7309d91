"""Count images that occur more than once in a data set.

Axes: N images. Two images are copies if all their canonical pixels are equal: the decoded ones,
before resizing.
"""

from dataclasses import dataclass

import numpy as np

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
    """Count exact copies in O(N log N) time.

    Nothing is removed here; `trainables.data.splits.make_splits` leaves out training images that
    have a copy in test.
    """
    _, group, sizes = np.unique(images.pixel_keys, return_inverse=True, return_counts=True)
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
