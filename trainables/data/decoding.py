"""From a source's files to its set of images: what is decoded, left out and refused.

Axes: N images, S pixels a side.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import DataError
from trainables.data.class_names import class_name
from trainables.data.image_set import Contents, ImageSet, Source
from trainables.data.source_sizes import Original, Originals

Progress = Callable[[float, str], None]
"""Takes the share that is done, in [0, 1], and what is being done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """What becomes of a source's images."""

    image_size: int
    """Pixels a side, S."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, instead of refusing them all."""
    leave_out: tuple[str, ...] = ()
    """Classes that are left out."""


def decode(
    source: Source,
    how: Decoding,
    allocate: Callable[[tuple[int, ...]], np.ndarray],
    progress: Progress | None = None,
) -> ImageSet:
    """Decode a source into an array that `allocate` makes, of shape [N, S, S, 3].

    Where images are skipped, the set that is returned holds only the first part of the
    array. `progress` is called after every batch.

    Raises:
        DataError: images cannot be decoded, the classes of test and train differ, or
            classes are to be left out that do not exist.
    """
    contents = source.read(how.image_size)
    chosen = _chosen(contents, how.leave_out)
    _check_own_test(contents, chosen)
    total, size = len(chosen), how.image_size
    images = allocate((int(chosen.sum()), size, size, 3))
    broken: dict[int, str] = {}
    originals: Counter[Original] = Counter()
    seen = filled = 0
    for batch in contents.batches:
        good = chosen[seen : seen + len(batch.images)].copy()
        for i, name in batch.broken.items():
            if good[i]:
                broken[seen + i] = name
                good[i] = False
        if not broken or how.skip_unreadable:
            images[filled : filled + good.sum()] = batch.images[good]
            filled += int(good.sum())
            kept = itertools.compress(batch.originals, good)
            originals.update(original for original in kept if original is not None)
        seen += len(batch.images)
        if progress is not None:
            progress(seen / total, f"{seen:,} of {total:,} images decoded")
    if seen != total:
        raise DataError(f"{source.root} gave {seen} images for {total} labels")
    if broken and (not how.skip_unreadable or not filled):
        raise DataError(_unreadable(list(broken.values()), total))
    chosen[list(broken)] = False
    return _image_set(source.name, images[:filled], contents, chosen, how, broken, originals)


def _chosen(contents: Contents, leave_out: tuple[str, ...]) -> np.ndarray:
    """Which images are of a class that is wanted, bool [N]."""
    leave_out = tuple(class_name(name) for name in leave_out)
    unknown = [name for name in leave_out if name not in contents.class_names]
    if unknown:
        raise DataError(
            f"leave_out names {unknown[0]!r}, which is no class; "
            f"classes: {_listing(contents.class_names)}"
        )
    left_out = [contents.class_names.index(name) for name in leave_out]
    left = [name for name in contents.class_names if name not in leave_out]
    if len(left) < 2:
        raise DataError(f"there must be two or more distinct classes, got {left}")
    chosen: np.ndarray = ~np.isin(contents.labels, left_out)
    return chosen


def _check_own_test(contents: Contents, chosen: np.ndarray) -> None:
    """Every class must stand both in the set's own test split and outside it."""
    if contents.is_test is None:
        return
    names = np.array(contents.class_names)
    learnt = set(names[contents.labels[chosen & ~contents.is_test]].tolist())
    tested = set(names[contents.labels[chosen & contents.is_test]].tolist())
    if learnt != tested:
        only = [
            f"{_listing(sorted(classes))} only in {where}"
            for classes, where in ((learnt - tested, "train"), (tested - learnt, "test"))
            if classes
        ]
        raise DataError(
            f"train and test have different classes: {'; '.join(only)}; give them the same, "
            "or name these in dataset.leave_out"
        )


def _unreadable(names: list[str], total: int) -> str:
    return (
        f"{len(names)} of {total} images cannot be read: {_listing(names)}; replace or remove "
        "them, or go on without them by --skip-unreadable"
    )


def _listing(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _image_set(
    name: str,
    images: np.ndarray,
    contents: Contents,
    chosen: np.ndarray,
    how: Decoding,
    broken: Mapping[int, str],
    originals: Mapping[Original, int],
) -> ImageSet:
    """The images that were decoded, with the classes that are left, numbered anew."""
    left_out = {class_name(name) for name in how.leave_out}
    classes = [i for i, name in enumerate(contents.class_names) if name not in left_out]
    groups = contents.groups
    return ImageSet(
        name=name,
        images=images,
        labels=np.searchsorted(classes, contents.labels[chosen]),
        class_names=tuple(contents.class_names[i] for i in classes),
        is_test=None if contents.is_test is None else contents.is_test[chosen],
        groups=None if groups is None else tuple(groups[i] for i in np.flatnonzero(chosen)),
        skipped=tuple(broken.values()),
        resized_from=Originals.of(originals) if originals else None,
    )
