"""Facts about a run's images: counts by class and split, sizes, duplicates, a contact sheet.

Axes: N images, S pixels a side, K classes. A report can be made after the images are gone;
then only the labels kept in the run's folder are known, and `DataFacts.missing` says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.errors import QuorumError
from journal.events import RunStarted
from search.space.spec import SweepSpec
from trainables.data.dataset import load_dataset
from trainables.data.duplicates import Duplicates, find_duplicates
from trainables.data.image_set import ImageSet
from trainables.data.source_sizes import SourceSizes
from trainables.data.splits import SPLITS, Splits, make_splits, notes_on

Array = np.ndarray[Any, Any]

SHEET_IMAGES = 40
"""Maximum number of images on the contact sheet."""
SHEET_CLASSES = 10
"""Maximum number of classes that get several images each on the contact sheet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The data set of a run."""

    missing: str = "they were not loaded"
    """Reason that the images are not available; empty if they are."""
    counts: Mapping[str, Array] = field(default_factory=dict)
    """Images of each class, int [K], by split; without the images, only splits whose labels
    are kept."""
    image_size: int | None = None
    """Pixels a side."""
    source_sizes: SourceSizes | None = None
    """Sizes and colour modes before resizing."""
    own_test: bool | None = None
    """The data set has its own test split."""
    grouped: bool = False
    """Images of a group are kept in one split."""
    left_out: int = 0
    """Images in no split because a copy of them, or their group, is in another one."""
    own_val: bool | None = None
    """The data set has its own val split."""
    skipped: tuple[str, ...] = ()
    """Files that could not be read."""
    notes: tuple[str, ...] = ()
    """Sentences on files that were left out, merged or read in part."""
    duplicates: Duplicates | None = None
    sheet: Array | None = None
    """Contact sheet, uint8 [n, S, S, 3]: the first training images of each class."""
    sheet_classes: tuple[int, ...] = ()
    """The class of each image on the sheet."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunImages:
    """A run's images, verified by fingerprint, and their splits."""

    image_set: ImageSet
    splits: Splits


def find_images(
    images: ImageSet | None, spec: SweepSpec, started: RunStarted | None
) -> tuple[RunImages | None, str]:
    """Return a run's images with their splits, or None and the reason they are missing.

    `images`, if given, are used instead of loading the data set of `spec`. Their fingerprint
    must equal that of `started`, the run_started event.
    """
    if started is None:
        return None, "the run has not started"
    fingerprint = started.fingerprint
    try:
        loaded = images if images is not None else load_dataset(spec.dataset)
        if loaded.fingerprint != fingerprint:
            return None, (
                f"the images of {loaded.name} have the fingerprint {loaded.fingerprint}, but the "
                f"run was made with {fingerprint}: they have changed, or the run was made by an "
                "earlier version"
            )
        if started.image_size not in (None, loaded.image_size):
            return None, (
                f"the images of {loaded.name} have {loaded.image_size} pixels a side, but the run "
                f"was made with {started.image_size}"
            )
        return RunImages(image_set=loaded, splits=make_splits(loaded, spec.splits)), ""
    except QuorumError as error:
        return None, " ".join(str(error).split())


def describe_data(
    images: RunImages | None,
    missing: str,
    labels: Mapping[str, Array],
    classes: int,
    *,
    sheet: bool,
) -> DataFacts:
    """Describe a run's images; if they are missing, count the kept `labels` by split.

    `missing` is the reason; `sheet` adds the contact sheet.
    """
    if images is None:
        counts = {split: _counts(values, classes) for split, values in labels.items()}
        return DataFacts(missing=missing, counts=counts)
    image_set, splits = images.image_set, images.splits
    per_class = max(1, SHEET_IMAGES // classes) if classes <= SHEET_CLASSES else 1
    shown = (
        _first_of_each(image_set.labels, splits.train, per_class)[:SHEET_IMAGES] if sheet else []
    )
    return DataFacts(
        missing="",
        counts={
            split: _counts(image_set.labels[getattr(splits, split)], classes) for split in SPLITS
        },
        image_size=image_set.image_size,
        source_sizes=image_set.source_sizes,
        own_test=image_set.is_test is not None,
        own_val=image_set.is_val is not None,
        grouped=image_set.groups is not None,
        left_out=splits.leaked,
        skipped=tuple(image_set.skipped),
        notes=notes_on(image_set, splits),
        duplicates=find_duplicates(image_set),
        sheet=np.asarray(image_set.images[np.array(shown)]) if shown else None,
        sheet_classes=tuple(int(image_set.labels[index]) for index in shown),
    )


def class_counts(facts: DataFacts, splits: Sequence[str] = SPLITS) -> Array | None:
    """Return the images of each class over all `splits`, int [K]; None if one is unknown."""
    if not set(splits) <= set(facts.counts):
        return None
    return np.asarray(np.sum([facts.counts[split] for split in splits], axis=0))


def _first_of_each(labels: Array, train: Array, per_class: int) -> list[int]:
    """Return the first `per_class` training images of every class, class by class."""
    order = np.argsort(labels[train], kind="stable")
    _, starts = np.unique(labels[train][order], return_index=True)
    parts = np.split(train[order], starts[1:])
    return [int(index) for part in parts for index in part[:per_class]]


def _counts(labels: Array, classes: int) -> Array:
    return np.bincount(np.asarray(labels, np.int64), minlength=classes)
