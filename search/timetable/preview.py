"""What a run would do: its data read and split, its trials and their schedules. Nothing trains."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from common.cpu_runtime import usable_cores
from journal.states import STAGES
from search.space.spec import SweepSpec
from search.timetable.capacity import machine_capacity, threads_per_trial
from search.timetable.plan import Plan
from search.timetable.planner import make_plan, plan_or_side, probed
from trainables.data.source_sizes import Originals
from trainables.data.sources import ImageSet, load_dataset, resolve_dataset
from trainables.data.splits import make_splits

SPLITS = ("train", "val", "holdout", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A run that has not begun."""

    spec: SweepSpec
    name: str
    """Of the data set."""
    image_size: int
    """Side in pixels."""
    originals: Originals
    """What the images were before they got this size."""
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
    planner: Callable[..., Plan] = make_plan,
) -> Preview:
    """Check a specification against its data, rehearse it for some seconds, and forecast it.

    Writes nothing but the decoded images' cache. `time_budget` (seconds), `device`, `stages`
    and `planner` are those of `quorum.workspace.run.Run`.

    Raises:
        SpecError: a space or recipe that cannot be, or a budget that is too short.
        DataError: data that cannot be used.
    """
    given = spec.dataset.image_size is not None
    asked, spec = spec, spec.with_values(dataset=resolve_dataset(spec.dataset))
    images = load_dataset(spec.dataset)
    deadline = None if time_budget is None else time.time() + time_budget
    planned = partial(_planned, device=device, deadline=deadline, stages=stages, planner=planner)
    plan = plan_or_side(partial(planned, spec, images), images.image_size, given=given)
    if isinstance(plan, int):
        spec = spec.with_values(dataset=resolve_dataset(asked.dataset, affordable=plan))
        images = load_dataset(spec.dataset)
        plan = planned(spec, images)
    splits = make_splits(images, spec.splits)
    counts = {
        split: np.bincount(images.labels[getattr(splits, split)], minlength=len(images.class_names))
        for split in SPLITS
    }
    return Preview(
        spec=spec,
        name=images.name,
        image_size=images.image_size,
        originals=images.originals,
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


def _planned(
    spec: SweepSpec,
    images: ImageSet,
    *,
    device: str | None,
    deadline: float | None,
    stages: Collection[str],
    planner: Callable[..., Plan],
) -> Plan:
    cores = usable_cores()
    threads = threads_per_trial(cores, concurrent=spec.concurrent, trials=spec.trials)
    numerics = probed(spec, images, device=device, threads=threads)
    workers = spec.concurrent or machine_capacity(numerics).trials_at_a_time(numerics)
    return planner(
        spec,
        images=images,
        splits=make_splits(images, spec.splits),
        numerics=numerics,
        cores=cores,
        workers=workers,
        together=workers,
        clock=time.time,
        deadline=deadline,
        stages=stages,
    )
