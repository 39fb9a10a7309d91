"""What a run's report tells of the images themselves, as far as they are at hand.

Axes: N images, S pixels a side, K classes. A report can be made where the
data are gone: then the labels in the run's folder are all that is known, and why is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.explain.attention import AttentionFacts
from analysis.explain.examples import Chosen, Maps
from common.errors import QuorumError
from search.space.spec import SweepSpec
from trainables.data.duplicates import Duplicates, find_duplicates
from trainables.data.image_set import ImageSet
from trainables.data.source_sizes import Originals
from trainables.data.sources import load_dataset
from trainables.data.splits import SPLITS, Splits, make_splits

Array = np.ndarray[Any, Any]

SHEET = 40
"""Most images on the contact sheet."""
SHEET_CLASSES = 10
"""Most classes of which it shows more than one image."""
CELLS = 4
"""Fewest cells a side of a feature map that can still show a place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """The data set of a run."""

    missing: str = "they were not asked for"
    """Why the images are not at hand; empty where they are."""
    counts: Mapping[str, Array] = field(default_factory=dict)
    """Images of each class, int [K], by split; without the images only where labels are kept."""
    image_size: int | None = None
    """Pixels a side."""
    originals: Originals | None = None
    """What the images were before they got this size."""
    own_test: bool | None = None
    """The data set came with a test split."""
    grouped: bool = False
    """Images of a group were kept together."""
    left_out: int = 0
    """Images in no split, since a copy of them, or their group, stands in another one."""
    skipped: tuple[str, ...] = ()
    """Files that could not be read."""
    duplicates: Duplicates | None = None
    sheet: Array | None = None
    """uint8 [n, S, S, 3]: the first training images of each of the first classes."""
    sheet_classes: tuple[int, ...] = ()
    chosen: Chosen | None = None
    """A hit and a miss of each class on test, whose answers are explained."""
    confused: Chosen | None = None
    """Examples of the most confused pairs, pair by pair."""
    maps: Maps = field(default_factory=Maps)
    not_explained: str = ""
    """Why there are no maps at all."""
    attention: AttentionFacts | None = None
    """What attention does in a net of the run, where one has it."""
    not_measured: str = ""
    """Why that is not known of a net that has it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pictured:
    """The images of a run, proven to be those it was made with."""

    images: ImageSet
    splits: Splits


def find_images(
    images: ImageSet | None, spec: SweepSpec, started: Mapping[str, Any]
) -> tuple[Pictured | None, str]:
    """The images of a run and their splits, or why there are none.

    `images` saves loading them again from the place that the run's `spec` names.
    """
    fingerprint = started.get("fingerprint")
    if not fingerprint:
        return None, "the run has not begun"
    try:
        found = images if images is not None else load_dataset(spec.dataset)
        if found.fingerprint != fingerprint:
            return None, (
                f"the images of {found.name} have the fingerprint {found.fingerprint}, the run was "
                f"made with {fingerprint}"
            )
        return Pictured(images=found, splits=make_splits(found, spec.splits)), ""
    except QuorumError as error:
        return None, " ".join(str(error).split())


def describe_data(
    found: Pictured | None, missing: str, labels: Mapping[str, Array], classes: int, *, sheet: bool
) -> DataFacts:
    """Counts, sizes and copies; `labels` by split serve where the images are gone."""
    if found is None:
        counts = {name: _counts(values, classes) for name, values in labels.items()}
        return DataFacts(missing=missing, counts=counts)
    images, splits = found.images, found.splits
    each = max(1, SHEET // classes) if classes <= SHEET_CLASSES else 1
    shown = _first_of_each(images.labels, splits.train, each)[:SHEET] if sheet else []
    return DataFacts(
        missing="",
        counts={name: _counts(images.labels[getattr(splits, name)], classes) for name in SPLITS},
        image_size=images.image_size,
        originals=images.originals,
        own_test=images.is_test is not None,
        grouped=images.groups is not None,
        left_out=splits.leaked,
        skipped=tuple(images.skipped),
        duplicates=find_duplicates(images),
        sheet=np.asarray(images.images[np.array(shown)]) if shown else None,
        sheet_classes=tuple(int(images.labels[index]) for index in shown),
    )


def _first_of_each(labels: Array, train: Array, each: int) -> list[int]:
    """The first `each` training images of each class, class by class; of a rare one fewer."""
    order = np.argsort(labels[train], kind="stable")
    _, starts = np.unique(labels[train][order], return_index=True)
    parts = np.split(train[order], starts[1:])
    return [int(index) for part in parts for index in part[:each]]


def _counts(labels: Array, classes: int) -> Array:
    return np.bincount(np.asarray(labels, np.int64), minlength=classes)


def class_counts(facts: DataFacts, splits: Sequence[str] = SPLITS) -> Array | None:
    """Images of each class in all `splits` together, int [K]; None where one is not known."""
    if not set(splits) <= set(facts.counts):
        return None
    return np.asarray(np.sum([facts.counts[name] for name in splits], axis=0))
