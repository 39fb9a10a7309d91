"""What a run would do: its data read and split, its trials and their schedules. Nothing trains."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from search.plan import STAGES
from search.planning import make_plan, probed
from search.session import usable_cores
from search.spec import SweepSpec
from trainables.datasets import load_dataset, resolve_dataset
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
    seconds: Mapping[str, float]
    """Forecast of every stage."""


def preview(
    spec: SweepSpec,
    *,
    time_budget: float | None = None,
    device: str | None = None,
    stages: Collection[str] = STAGES,
) -> Preview:
    """Check a specification against its data, rehearse it for some seconds, and forecast it.

    Writes nothing but the decoded images' cache. `time_budget` (seconds), `device` and
    `stages` are those of `search.run.Run`.

    Raises:
        SpecError: a space or recipe that cannot be, or a budget that is too short.
        DataError: data that cannot be used.
    """
    spec = spec.with_values(dataset=resolve_dataset(spec.dataset))
    images = load_dataset(spec.dataset)
    splits = make_splits(images, spec.splits)
    counts = {
        split: np.bincount(images.labels[getattr(splits, split)], minlength=len(images.class_names))
        for split in SPLITS
    }
    plan = make_plan(
        spec,
        images=images,
        splits=splits,
        numerics=probed(spec, images, device=device, threads=1),
        cores=usable_cores(),
        clock=time.time,
        deadline=None if time_budget is None else time.time() + time_budget,
        stages=stages,
    )
    return Preview(
        spec=spec,
        name=images.name,
        image_size=images.image_size,
        sizes={split: int(count.sum()) for split, count in counts.items()},
        classes={
            name: tuple(int(counts[split][index]) for split in SPLITS)
            for index, name in enumerate(images.class_names)
        },
        trials=plan.trials,
        rungs=plan.rungs,
        student_epochs=plan.student_epochs,
        seconds={stage: plan.seconds[stage] for stage in STAGES if stage in stages},
    )
