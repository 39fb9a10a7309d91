"""What a run would do: its data read and split, its trials and their schedules. Nothing trains."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from search.spec import SweepSpec
from trainables.datasets import load_dataset
from trainables.splits import make_splits

SPLITS = ("train", "val", "holdout", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A run that has not begun."""

    spec: SweepSpec
    name: str
    """Of the data set."""
    image_size: int
    """Side in pixels."""
    sizes: Mapping[str, int]
    """Images by split."""
    classes: Mapping[str, tuple[int, ...]]
    """Images of each class, by split."""
    trials: int | None
    """None: as many as there is time for."""
    rungs: tuple[int, ...]
    """In epochs."""
    student_epochs: int
    seconds: Mapping[str, float] | None = None
    """Forecast of every stage, where one was made."""


def preview(spec: SweepSpec, *, time_budget: float | None = None) -> Preview:
    """Check a specification against its data. Writes nothing but the decoded images' cache.

    With a `time_budget` (seconds), the schedules are fitted into it when the run begins.

    Raises:
        SpecError: a space or recipe that cannot be.
        DataError: data that cannot be used.
    """
    images = load_dataset(spec.dataset)
    splits = make_splits(images, spec.splits)
    counts = {
        split: np.bincount(images.labels[getattr(splits, split)], minlength=len(images.class_names))
        for split in SPLITS
    }
    return Preview(
        spec=spec,
        name=images.name,
        image_size=images.image_size,
        sizes={split: int(count.sum()) for split, count in counts.items()},
        classes={
            name: tuple(int(counts[split][index]) for split in SPLITS)
            for index, name in enumerate(images.class_names)
        },
        trials=None if time_budget is not None else spec.trials,
        rungs=spec.rungs,
        student_epochs=spec.student_recipe().epochs,
    )
