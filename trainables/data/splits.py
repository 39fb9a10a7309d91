"""Divide a data set into train, val, holdout and test.

Axes: N images. Every image gets a number u in [0, 1), a hash of the seed and its content, which
determines its split. Copies therefore stay together, and a new image moves no other image.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from common.errors import DataError, SpecError
from common.parsing import to_mapping
from common.seeds import derive_seed
from trainables.data.duplicates import pixel_digests
from trainables.data.image_set import ImageSet

FEWEST_PER_CLASS = 5
"""Fewest examples of each class in each split."""
NAMED_CLASSES = 5
"""Largest number of classes that an error names."""
FLOOR_SHARE = 0.20
"""Largest share of the images outside test to which `floor` can raise val and holdout each."""

SPLITS = ("train", "val", "holdout", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSpec:
    """Sizes of the splits, and the seed of the hash."""

    seed: int = 0
    test: float = 0.20
    """Fraction of all images in test, if the data set has no test split of its own."""
    holdout: float = 0.10
    """Fraction of the images outside test."""
    val: float = 0.05
    """Fraction of the images outside test."""
    floor: int = 400
    """Fewest examples in val and in holdout, for small sets; see FLOOR_SHARE."""
    counts: tuple[int, int, int] | None = None
    """Exact sizes of train, val and holdout; all other examples are test."""

    def __post_init__(self) -> None:
        """Refuse fractions and counts that leave a split empty."""
        for name in ("test", "holdout", "val"):
            if not 0 < getattr(self, name) < 1:
                raise SpecError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.holdout + self.val >= 1:
            raise SpecError(
                f"holdout and val must add up to less than 1, got {self.holdout} + {self.val}"
            )
        if self.floor < 0:
            raise SpecError(f"floor must be at least 0, got {self.floor}")
        if self.counts is not None and min(self.counts) < 1:
            raise SpecError(f"counts must be at least 1 each, got {list(self.counts)}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Splits:
    """Disjoint, ascending indices into the images of one data set."""

    train: Int64[np.ndarray, " train"]
    val: Int64[np.ndarray, " val"]
    holdout: Int64[np.ndarray, " holdout"]
    test: Int64[np.ndarray, " test"]
    split_id: str
    """16 hex digits that identify the images, seed and fractions."""
    leaked: int = 0
    """Number of images in no split, because a copy of them or their group is in another split."""

    @property
    def sizes(self) -> dict[str, int]:
        """Return the number of examples in each split."""
        return {name: len(getattr(self, name)) for name in SPLITS}


def make_splits(images: ImageSet, spec: SplitSpec) -> Splits:
    """Divide a data set by a hash of its content.

    u is a hash of the seed and of an image's group, or of its decoded pixels if it has no group.
    If the set has no test split of its own, images whose second, independent hash is below
    `spec.test` form test. Among the other images, holdout has u < `spec.holdout`, val has the
    next `spec.val`, and train has the remaining ones. If val or holdout has fewer than
    `spec.floor` examples, its upper bound on u is raised until it has enough, up to FLOOR_SHARE
    of the images outside test.

    With `spec.counts`, images fill holdout, then val, then train in order of u; an image that
    would overfill a split together with its copies goes to the next split. All remaining images
    form test, or are in no split if the set has a test split of its own.

    Images that would leak are in no split and are counted in `leaked`: images with an exact copy
    or their group in the set's own test split, and, if copies are in several groups, those in
    all groups but one.

    Raises:
        DataError: a split has fewer than 5 examples of a class, or `spec.counts` cannot be met.
    """
    content, unit = _identities(images)
    u = _uniform(unit, "split", spec.seed)
    leaks = _leaks(images, content, unit, u)
    own_test = images.is_test
    if spec.counts is not None:
        candidates = ~leaks if own_test is None else ~leaks & ~own_test
        split = _by_counts(u, candidates, spec.counts)
        is_test = candidates & (split == "") if own_test is None else own_test
    else:
        is_test = _uniform(unit, "test", spec.seed) < spec.test if own_test is None else own_test
        split = _by_fractions(u, ~is_test & ~leaks, spec)
    split[is_test & ~leaks] = "test"
    _check_classes(images, split)
    indices = {name: np.flatnonzero(split == name) for name in SPLITS}
    return Splits(**indices, split_id=_split_id(images, spec), leaked=int(leaks.sum()))


def _identities(images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Return two digests per image, V16 [N]: its pixels' and its group's (else its pixels')."""
    content = pixel_digests(images.images)
    if images.groups is None:
        return content, content
    unit = [
        hashlib.blake2b(group.encode(), digest_size=16, person=b"group").digest()
        if group
        else pixels.tobytes()
        for group, pixels in zip(images.groups, content, strict=True)
    ]
    return content, np.array(unit, "V16")


def _uniform(unit: np.ndarray, stream: str, seed: int) -> Float64[np.ndarray, " N"]:
    """Return a number of 53 bits in [0, 1) for each unit: a hash keyed by seed and stream."""
    key = derive_seed(seed, "splits", stream).to_bytes(8, "big")
    digests = b"".join(hashlib.blake2b(u.tobytes(), digest_size=8, key=key).digest() for u in unit)
    bits: Float64[np.ndarray, " N"] = np.frombuffer(digests, ">u8") >> np.uint64(11)
    return bits * 2.0**-53


def _leaks(
    images: ImageSet, content: np.ndarray, unit: np.ndarray, u: Float64[np.ndarray, " N"]
) -> Bool[np.ndarray, " N"]:
    """Return which images must be left out of all splits; see `make_splits`."""
    leaks = np.zeros(len(images), np.bool_)
    if images.is_test is not None:
        for identity in (content, unit):
            leaks |= ~images.is_test & np.isin(identity, identity[images.is_test])
    if images.groups is not None:
        _, copy = np.unique(content, return_inverse=True)
        least = np.full(len(images), np.inf)
        rest = ~leaks if images.is_test is None else ~leaks & ~images.is_test
        np.minimum.at(least, copy[rest], u[rest])
        leaks |= rest & (u > least[copy])
    return leaks


def _by_fractions(
    u: Float64[np.ndarray, " N"], rest: Bool[np.ndarray, " N"], spec: SplitSpec
) -> np.ndarray:
    """Return the split's name for every image in `rest`, an empty string for the others."""
    ascending = np.sort(u[rest])
    holdout = _end(ascending, start=0.0, fraction=spec.holdout, floor=spec.floor)
    val = _end(ascending, start=holdout, fraction=spec.val, floor=spec.floor)
    names = np.where(u < holdout, "holdout", np.where(u < val, "val", "train"))
    return np.where(rest, names, "")


def _end(
    ascending: Float64[np.ndarray, " rest"], *, start: float, fraction: float, floor: int
) -> float:
    """Return the upper bound of the split from `start`: start + fraction, or more for the floor."""
    first, last = np.searchsorted(ascending, [start, start + fraction])
    if last - first >= floor:
        return start + fraction
    values, sizes = np.unique(ascending[first:], return_counts=True)
    totals = np.cumsum(sizes)
    needed = int(np.searchsorted(totals, floor)) + 1
    allowed = int(np.searchsorted(totals, FLOOR_SHARE * len(ascending), side="right"))
    taken = min(needed, allowed)
    if taken == 0 or totals[taken - 1] <= last - first:
        return start + fraction
    return float(np.nextafter(values[taken - 1], 1.0))


def _by_counts(
    u: Float64[np.ndarray, " N"], candidates: Bool[np.ndarray, " N"], counts: tuple[int, int, int]
) -> np.ndarray:
    """Return the split's name for each image that is in a split, an empty string for the others."""
    train, val, holdout = counts
    room = {"holdout": holdout, "val": val, "train": train}
    chosen: list[str] = []
    values, place, sizes = np.unique(u[candidates], return_inverse=True, return_counts=True)
    for size in sizes.tolist():
        name = next((name for name, places in room.items() if places >= size), "")
        if name:
            room[name] -= size
        chosen.append(name)
    short = {name: places for name, places in room.items() if places}
    if short:
        raise DataError(
            f"splits.counts asks for {sum(counts)} images in train, val and holdout, but only "
            f"{int(candidates.sum())} are available ({len(values)} distinct images or groups); "
            f"missing: {short}; set smaller counts"
        )
    split = np.full(len(u), "", "<U8")
    split[candidates] = np.array(chosen, "<U8")[place]
    return split


def _check_classes(images: ImageSet, split: np.ndarray) -> None:
    """Refuse splits with too few examples of a class, and name the rarest classes."""
    classes = len(images.class_names)
    counts = np.array(
        [np.bincount(images.labels[split == name], minlength=classes) for name in SPLITS]
    )
    least = counts.min(axis=0)
    rare = np.flatnonzero(least < FEWEST_PER_CLASS)
    if not len(rare):
        return
    rarest_first = rare[np.argsort(least[rare], kind="stable")]
    named = [
        f"{images.class_names[k]!r} ({least[k]} in {SPLITS[counts[:, k].argmin()]}, "
        f"{counts[:, k].sum()} in all)"
        for k in rarest_first[:NAMED_CLASSES]
    ]
    more = f" and {len(rare) - len(named)} more" if len(rare) > len(named) else ""
    short = ", ".join(name for name, row in zip(SPLITS, counts, strict=True)
                      if row.min() < FEWEST_PER_CLASS)  # fmt: skip
    names = ", ".join(images.class_names[k] for k in rarest_first[:NAMED_CLASSES])
    raise DataError(
        f"{len(rare)} of {classes} classes have fewer than {FEWEST_PER_CLASS} examples in "
        f"some split: {', '.join(named)}{more}; add images of them, merge classes, make "
        f"{short} larger in splits, or leave them out: "
        f"dataset: {{leave_out: [{names}{', …' if more else ''}]}}"
    )


def _split_id(images: ImageSet, spec: SplitSpec) -> str:
    text = json.dumps([images.fingerprint, to_mapping(spec)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
