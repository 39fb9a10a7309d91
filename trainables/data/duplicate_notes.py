"""Name images that occur in several classes, or both in test and outside it.

Axes: N images.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from common.formats import plural
from trainables.data.notes import NAMED, Note, printable

NameOf = Callable[[int], str]
"""A function from an image's index to the name of its file or row."""


def duplicate_notes(
    digests: Shaped[np.ndarray, " N"],
    labels: Int64[np.ndarray, " N"],
    is_test: Bool[np.ndarray, " N"] | None,
    name_of: NameOf,
) -> Iterator[Note]:
    """Yield a note on each kind of copies; images with equal `digests` are copies.

    `count` is the number of images in several classes, and of images outside the data set's own
    test split that have a copy in it. Examples are pairs of names.
    """
    _, copy, sizes = np.unique(digests, return_inverse=True, return_counts=True)
    if len(sizes) == len(digests):
        return
    mixed = _differ(copy, labels, len(sizes))
    if mixed.any():
        count = int(sizes[mixed].sum())
        what = f"{plural(count, 'image')} with copies in another class"
        yield _note("two_classes", count, what, copy, mixed, labels, name_of)
    if is_test is None:
        return
    shared = _differ(copy, is_test.astype(np.int64), len(sizes))
    if shared.any():
        count = int((shared[copy] & ~is_test).sum())
        what = f"{plural(count, 'image')} outside test with copies in it"
        yield _note("train_and_test", count, what, copy, shared, is_test, name_of)


def _differ(copy: np.ndarray, values: np.ndarray, groups: int) -> Bool[np.ndarray, " groups"]:
    """Return which groups of copies have several values."""
    lowest = np.full(groups, np.iinfo(np.int64).max)
    highest = np.full(groups, -1)
    np.minimum.at(lowest, copy, values)
    np.maximum.at(highest, copy, values)
    differ: np.ndarray = lowest < highest
    return differ


def _note(
    topic: str,
    count: int,
    what: str,
    copy: np.ndarray,
    chosen: np.ndarray,
    values: np.ndarray,
    name_of: NameOf,
) -> Note:
    """Return a note with the first pairs of copies that have different values."""
    pairs = [
        " = ".join(
            printable(name_of(i)) for i in _first_pair(np.flatnonzero(copy == group), values)
        )
        for group in _in_order(copy, chosen)[:NAMED]
    ]
    more = ", …" if chosen.sum() > len(pairs) else ""
    return Note(topic=topic, count=count, text=f"{what}: {', '.join(pairs)}{more}",
                examples=tuple(pairs))  # fmt: skip


def _in_order(copy: np.ndarray, chosen: np.ndarray) -> list[int]:
    """Return the chosen groups in the order of their first images."""
    groups, first = np.unique(copy, return_index=True)
    return [int(group) for group in groups[np.argsort(first)] if chosen[group]]


def _first_pair(members: np.ndarray, values: np.ndarray) -> Sequence[int]:
    """Return a group's first image, and the first one with another value."""
    other = members[values[members] != values[members[0]]]
    return int(members[0]), int(other[0])
