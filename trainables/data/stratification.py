"""Draw splits class by class, without dividing copies or groups.

Axes: N images, K classes. A unit is an image, or all images that must stay together; it can hold
images of several classes. Units come in the order of u, a hash of their content, so a split does
not depend on the order or the number of the other images except through the sizes of the classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from trainables.data.digests import text_keys, uniform
from trainables.data.image_set import ImageSet

DIGITS = 9
"""Decimals to which shares of classes are rounded, so that 0.29 × 100 is 29."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Images that stay together."""

    index: int
    counts: tuple[tuple[int, int], ...]
    """Number of images of each class that the unit holds, as (class, images)."""

    @property
    def size(self) -> int:
        """Return the number of images."""
        return sum(images for _, images in self.counts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Strata:
    """The labels of N images, and what must stay together."""

    images: ImageSet
    unit: np.ndarray
    """V16 [N]; the key of what each image stays together with."""
    seed: int

    def counts(self, mask: Bool[np.ndarray, " N"]) -> Int64[np.ndarray, " K"]:
        """Return the number of images of each class."""
        classes = len(self.images.class_names)
        return np.bincount(self.images.labels[mask], minlength=classes)

    def ties(self, stream: str) -> Float64[np.ndarray, " K"]:
        """Return a number for each class that decides which of equal remainders is rounded up."""
        names = text_keys(self.images.class_names, kind=b"class")
        return uniform(names, "splits", stream, seed=self.seed)

    def units(
        self, mask: Bool[np.ndarray, " N"], u: Float64[np.ndarray, " N"]
    ) -> tuple[list[Unit], Int64[np.ndarray, " n"]]:
        """Return the units of the masked images in the order of u, and each image's by index."""
        classes = len(self.images.class_names)
        _, first, index = np.unique(self.unit[mask], return_index=True, return_inverse=True)
        pairs, images = np.unique(index * classes + self.images.labels[mask], return_counts=True)
        counts: list[list[tuple[int, int]]] = [[] for _ in first]
        for pair, number in zip(pairs.tolist(), images.tolist(), strict=True):
            counts[pair // classes].append((pair % classes, number))
        order = np.argsort(u[mask][first], kind="stable").tolist()
        return [Unit(index=i, counts=tuple(counts[i])) for i in order], index


def share_out(
    total: int,
    shares: Float64[np.ndarray, " K"],
    *,
    most: Int64[np.ndarray, " K"],
    owed: Float64[np.ndarray, " K"],
    ties: Float64[np.ndarray, " K"],
) -> Int64[np.ndarray, " K"]:
    """Return whole numbers that sum to `total`, each one of its share's two neighbours.

    This is the largest remainder method: shares are rounded down, and the classes with the largest
    `owed` (then the smallest `ties`) get one more. `most` bounds the numbers; where it does, the
    sum can be smaller than `total`. Classes whose share is whole get one more only as a last
    resort.
    """
    shares = np.round(shares, DIGITS)
    lower = np.minimum(np.floor(shares).astype(np.int64), most)
    whole = shares == np.floor(shares)
    order = np.lexsort((ties, -np.round(owed, DIGITS), whole))
    eligible = order[lower[order] < most[order]]
    lower[eligible[: max(0, total - int(lower.sum()))]] += 1
    return np.asarray(lower)


def draw(
    units: Sequence[Unit],
    quota: Int64[np.ndarray, " K"],
    available: Int64[np.ndarray, " K"],
) -> list[int]:
    """Return the units, by index, of a split that gets `quota[k]` images of class k.

    `units` are in the order of u; `available` counts their images. A unit is taken if it brings the
    counts nearer to the quotas, so single images fill them exactly. If that leaves a class with a
    quota but no image, because its units are too large, the unit with an image of it that brings
    the counts nearest is taken. The last images of a class are never taken: they are for training.
    """
    room, left = quota.tolist(), available.tolist()
    taken = [unit for unit in units if _take(unit, room, left, least_gain=1)]
    covered = {k for unit in taken for k, _ in unit.counts}
    chosen = {unit.index for unit in taken}
    for k in np.flatnonzero(quota).tolist():
        if k in covered:
            continue
        holders = [u for u in units if u.index not in chosen and any(c == k for c, _ in u.counts)]
        for unit in sorted(holders, key=lambda unit: -_gain(unit, room)):  # stable: then by u
            if _take(unit, room, left, least_gain=-unit.size):
                chosen.add(unit.index)
                covered |= {c for c, _ in unit.counts}
                break
    return sorted(chosen)


def draw_exactly(units: Sequence[Unit], quota: Int64[np.ndarray, " K"]) -> tuple[list[int], int]:
    """Return the units of a split of exactly `quota.sum()` images, and how many it lacks.

    `units` are in the order of u. Units that fit the quotas of their classes come first, then
    those that fit the remaining room, of whatever class; units that fit neither are passed over.
    """
    room, rest = quota.tolist(), int(quota.sum())
    chosen: set[int] = set()
    for unit in units:
        if all(images <= room[k] for k, images in unit.counts):
            for k, images in unit.counts:
                room[k] -= images
            rest -= unit.size
            chosen.add(unit.index)
    for unit in units if rest else ():
        if unit.index not in chosen and unit.size <= rest:
            rest -= unit.size
            chosen.add(unit.index)
    return sorted(chosen), rest


def _take(unit: Unit, room: list[int], left: list[int], *, least_gain: int) -> bool:
    """Take a unit if it gains enough and every class keeps an image; return whether it did."""
    if _gain(unit, room) < least_gain or any(left[k] <= images for k, images in unit.counts):
        return False
    for k, images in unit.counts:
        room[k] -= images
        left[k] -= images
    return True


def _gain(unit: Unit, room: list[int]) -> int:
    """Return how much nearer to the quotas the unit brings the counts, in images."""
    return sum(abs(room[k]) - abs(room[k] - images) for k, images in unit.counts)
