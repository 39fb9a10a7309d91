"""Divide a data set into train, val, holdout and test, class by class.

Axes: N images, K classes. Every image gets a number u in [0, 1), a hash of the seed and of its
canonical pixels or its group, which ranks it within its class. An image's split thus depends on its
content, never on the size it is trained at or the order of the files; copies stay together; and a
new image moves few others.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from common.errors import DataError, SpecError
from common.formats import plural
from common.parsing import to_mapping
from trainables.data.digests import text_keys, uniform
from trainables.data.image_set import ImageSet
from trainables.data.stratification import Strata, draw, draw_exactly, share_out

FEWEST_TO_TRAIN = 5
"""Classes with fewer training images are named in a warning."""
NAMED_CLASSES = 10
"""Largest number of classes that a warning names."""
FLOOR_SHARE = 0.20
"""Largest share of the images outside test to which `floor` can raise val and holdout each."""

SCHEME = 2
"""Version of the rule, part of `split_id`: raise it when images would change their splits."""

SPLITS = ("train", "val", "holdout", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSpec:
    """Sizes of the splits, and the seed of the hash."""

    seed: int = 0
    test: float = 0.20
    """Fraction of the images in test, if the data set has no test split of its own; images of
    its own val split do not count."""
    holdout: float = 0.10
    """Fraction of the images outside test and outside the data set's own val split."""
    val: float = 0.05
    """Fraction of the images outside test, if the data set has no val split of its own."""
    floor: int = 400
    """Fewest examples in val and in holdout, for small sets; see FLOOR_SHARE."""
    counts: tuple[int, int, int] | None = None
    """Exact sizes of train, val and holdout. All other examples are test, or in no split if the
    data set has its own test split."""

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
    """16 hex digits that identify the images, the SplitSpec and the rule of division."""
    leaked: int = 0
    """Number of images in no split, because a copy of them or their group is in another split."""
    warnings: tuple[str, ...] = ()
    """A sentence for each split with too few examples of a class, and one if val was replaced."""

    @property
    def sizes(self) -> dict[str, int]:
        """Return the number of examples in each split."""
        return {name: len(getattr(self, name)) for name in SPLITS}


def make_splits(images: ImageSet, spec: SplitSpec) -> Splits:
    """Divide a data set by a hash of its content, each class in the same proportions.

    u is a hash of the seed and of an image's group, or of its canonical pixels if it has no group.
    Images of a class are ranked by u. A data set's own test and val splits are kept; without
    them, test gets the first `spec.test` of each class by a second, independent u; of the other
    images, holdout gets the first `spec.holdout` of each class, val the next `spec.val`, and train
    the remaining ones. If val or holdout would have fewer than `spec.floor` images, its fraction
    is raised until it has as many, or to FLOOR_SHARE. Each split gets each class's share, rounded
    up or down, and a class keeps at least one training image.

    Copies and groups are never divided: they are taken whole if that brings the counts nearer to
    the shares (see `trainables.data.stratification.draw`).

    With `spec.counts`, holdout, val and train get exactly so many images, in this order, each class
    its share. All remaining images form test, or are in no split if the set has its own test split.

    Images that would leak are in no split and are counted in `leaked`: images with an exact copy
    or their group in the set's own test split, or in its own val split, and, if copies are in
    several groups, those in all groups but one. An own val split of which nothing is left is
    replaced by one drawn from train.

    Classes that lack examples are named in `warnings`.

    Raises:
        DataError: a split has no image, train has fewer than two classes, or `spec.counts`
            cannot be met.
    """
    unit = _units(images)
    u = uniform(unit, "splits", "split", seed=spec.seed)
    free = ~_leaks(images, unit, u)
    replaced: tuple[str, ...] = ()
    if images.is_val is not None and not (images.is_val & free).any():
        count = plural(int(images.is_val.sum()), "image")
        replaced = (
            f"val is drawn from train: all {count} of the data set's val split have copies or "
            "images of their group in test",
        )
        images = replace(images, is_val=None)
    split = np.full(len(images), "", "<U8")
    for name, own in (("test", images.is_test), ("val", images.is_val)):
        if own is not None:
            split[own & free] = name
    strata = Strata(images=images, unit=unit, seed=spec.seed)
    if spec.counts is None:
        _draw_fractions(strata, split, free, u, spec)
    else:
        _draw_counts(strata, split, free, u, spec.counts)
    _check(images, unit, split)
    return Splits(
        **{name: np.flatnonzero(split == name) for name in SPLITS},
        split_id=_split_id(images, spec),
        leaked=int((~free).sum()),
        warnings=(*replaced, *_warnings(images, split)),
    )


def notes_on(images: ImageSet, splits: Splits) -> tuple[str, ...]:
    """Return sentences on what was left out, merged or read in part, and on rare classes."""
    leaked: tuple[str, ...] = ()
    if splits.leaked:
        leaked = (
            f"{plural(splits.leaked, 'image')} in no split: copies of them, or their group, are in "
            "another split",
        )
    return (*(note.text for note in images.notes), *leaked, *splits.warnings)


def _units(images: ImageSet) -> np.ndarray:
    """Return what each image is hashed by, V16 [N]: its group, else its canonical pixels."""
    pixels = images.pixel_keys
    if images.groups is None:
        return pixels
    grouped = np.array([bool(group) for group in images.groups])
    return np.where(grouped, text_keys(images.groups, kind=b"group"), pixels)


def _leaks(
    images: ImageSet, unit: np.ndarray, u: Float64[np.ndarray, " N"]
) -> Bool[np.ndarray, " N"]:
    """Return which images must be left out of all splits; see `make_splits`."""
    content = images.pixel_keys
    leaks = np.zeros(len(images), np.bool_)
    kept = np.zeros(len(images), np.bool_)
    for marked in (images.is_test, images.is_val):
        if marked is not None:
            own = marked & ~leaks
            kept |= own
            for identity in (content, unit):
                leaks |= ~kept & np.isin(identity, identity[own])
    if images.groups is not None:
        _, copy = np.unique(content, return_inverse=True)
        least = np.full(len(images), np.inf)
        rest = ~leaks & ~kept
        np.minimum.at(least, copy[rest], u[rest])
        leaks |= rest & (u > least[copy])
    return leaks


def _draw_fractions(
    strata: Strata,
    split: np.ndarray,
    free: Bool[np.ndarray, " N"],
    u: Float64[np.ndarray, " N"],
    spec: SplitSpec,
) -> None:
    """Name the split of every free image that has none yet."""

    def fill(
        name: str,
        fraction: float,
        *,
        of: Int64[np.ndarray, " K"],
        order: Float64[np.ndarray, " N"],
        before: Int64[np.ndarray, " K"] | int = 0,
        before_share: float = 0.0,
        floor: int = 0,
    ) -> float:
        """Fill a split with a fraction of the images `of` each class; return that fraction.

        Classes that got fewer images `before` than their share are the first to be rounded up.
        """
        images = int(of.sum())
        total = max(1, int(fraction * images + 0.5))
        raised = min(floor, int(FLOOR_SHARE * images))
        if raised > total:
            total, fraction = raised, raised / images
        rest = free & (split == "")
        available = strata.counts(rest)
        quota = share_out(
            total,
            fraction * of,
            most=np.maximum(available - 1, 0),
            owed=(before_share + fraction) * of - before,
            ties=strata.ties(name),
        )
        units, index = strata.units(rest, order)
        split[np.flatnonzero(rest)[np.isin(index, draw(units, quota, available))]] = name
        return fraction

    if strata.images.is_test is None:
        of = strata.counts(free & (split == ""))
        fill("test", spec.test, of=of, order=uniform(strata.unit, "splits", "test", seed=spec.seed))
    of = strata.counts(free & (split == ""))
    share = fill("holdout", spec.holdout, of=of, order=u, floor=spec.floor)
    if strata.images.is_val is None:
        before = strata.counts(split == "holdout")
        fill("val", spec.val, of=of, order=u, before=before, before_share=share, floor=spec.floor)
    split[free & (split == "")] = "train"


def _draw_counts(
    strata: Strata,
    split: np.ndarray,
    free: Bool[np.ndarray, " N"],
    u: Float64[np.ndarray, " N"],
    counts: tuple[int, int, int],
) -> None:
    """Name the split of the images that exact counts ask for; see `make_splits`."""
    pool = free & (split == "")
    own_val = split == "val"
    split[own_val] = ""
    of, of_val = strata.counts(pool), strata.counts(own_val)
    missing: dict[str, int] = {}
    for name, total in (("holdout", counts[2]), ("val", counts[1]), ("train", counts[0])):
        own = name == "val" and strata.images.is_val is not None
        rest = (own_val if own else pool) & (split == "")
        images = of_val if own else of
        shares = total / max(1, int(images.sum())) * images
        quota = share_out(
            total, shares, most=strata.counts(rest), owed=shares % 1, ties=strata.ties(name)
        )
        units, index = strata.units(rest, u)
        chosen, lacking = draw_exactly(units, quota)
        split[np.flatnonzero(rest)[np.isin(index, chosen)]] = name
        if total - int(quota.sum()) + lacking:
            missing[name] = total - int(quota.sum()) + lacking
    if missing:
        candidates = pool | own_val
        distinct = len(np.unique(strata.unit[candidates]))
        raise DataError(
            f"splits.counts asks for {sum(counts)} images in train, val and holdout, but only "
            f"{int(candidates.sum())} are available ({distinct} distinct images or groups); "
            f"missing: {missing}; set smaller counts"
        )
    if strata.images.is_test is None:
        split[free & (split == "")] = "test"


def _check(images: ImageSet, unit: np.ndarray, split: np.ndarray) -> None:
    """Refuse a division from which nothing can be learnt or measured."""
    empty = [name for name in SPLITS if not (split == name).any()]
    if empty:
        raise DataError(
            f"{', '.join(empty)} would be empty: {len(images)} images "
            f"({len(np.unique(unit))} distinct images or groups) in {len(images.class_names)} "
            "classes are too few, because every class keeps one for train; add images"
        )
    learnt = np.unique(images.labels[split == "train"])
    if len(learnt) < 2:
        raise DataError(
            f"train would have images of {images.class_names[learnt[0]]!r} only; at least two "
            "classes are needed: add images of others"
        )


def _warnings(images: ImageSet, split: np.ndarray) -> Iterator[str]:
    """Yield a sentence for each split that lacks examples of a class; it names the classes."""
    classes = len(images.class_names)
    counts = {name: np.bincount(images.labels[split == name], minlength=classes) for name in SPLITS}
    for name, least in (("train", FEWEST_TO_TRAIN), ("val", 1), ("holdout", 1), ("test", 1)):
        rare = np.flatnonzero(counts[name] < least)
        if not len(rare):
            continue
        rarest_first = rare[np.argsort(counts[name][rare], kind="stable")]
        named = [
            images.class_names[k] + (f" ({counts[name][k]})" if least > 1 else "")
            for k in rarest_first[:NAMED_CLASSES]
        ]
        more = f" and {len(rare) - len(named)} more" if len(rare) > len(named) else ""
        lack = "no example" if least == 1 else f"fewer than {least} examples"
        verb = "has" if len(rare) == 1 else "have"
        yield f"{len(rare)} of {classes} classes {verb} {lack} in {name}: {', '.join(named)}{more}"


def _split_id(images: ImageSet, spec: SplitSpec) -> str:
    text = json.dumps([SCHEME, images.fingerprint, to_mapping(spec)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
