"""A dry run: read and split the data, plan the trials and their schedules, train nothing."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from journal.events import STAGES
from search.space.available_families import with_available_families
from search.space.spec import SweepSpec
from search.timetable.capacity import threads_per_trial
from search.timetable.measuring import Setup, probe_families
from search.timetable.plan import Plan
from search.timetable.planner import Planner, make_plan, plan_or_shrink
from search.timetable.site import Site, ThisMachine, trials_at_a_time
from trainables.data.dataset import load_dataset, resolve_dataset
from trainables.data.image_set import ImageSet
from trainables.data.source_sizes import SourceSizes
from trainables.data.splits import Splits, make_splits, notes_on

SPLITS = ("train", "val", "holdout", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The data, trials and forecast of a run that has not started."""

    spec: SweepSpec
    name: str
    """Name of the data set."""
    image_size: int
    """Side in pixels."""
    source_sizes: SourceSizes
    """Sizes and colour modes of the images before they were resized."""
    sizes: Mapping[str, int]
    """Images by split."""
    notes: tuple[str, ...] = ()
    """Sentences on too few trials, on families and files that are left out, merged or read in part,
    and on rare classes."""
    classes: Mapping[str, tuple[int, ...]]
    """Images of each class, by split."""
    trials: int | None
    """Trials of the sweep; None for as many as the time allows."""
    rungs: tuple[int, ...]
    """Epochs at which trials are scored."""
    student_epochs: int
    seconds: Mapping[str, float]
    """Forecast of each stage's wall time."""


def preview(
    spec: SweepSpec,
    *,
    time_budget: float | None = None,
    device: str | None = None,
    stages: Collection[str] = STAGES,
    planner: Planner = make_plan,
    site: Site | None = None,
    workers: int | None = None,
    resumed: bool = False,
) -> Preview:
    """Check a specification against its data, rehearse it for a few seconds, and forecast it.

    Writes nothing but the cache of decoded images. `time_budget` is in seconds; `device` is
    `cpu`, `cuda`, or None for a GPU where there is one; `stages` are the stages that would run.
    The specification of a run to be resumed (`resumed`) keeps its families, image size and rungs.

    Raises:
        SpecError: a space or recipe is impossible, or the budget is too short.
        DataError: the data cannot be used.
    """
    began = time.time()
    deadline = None if time_budget is None else began + time_budget
    spec, notes = (spec, ()) if resumed else with_available_families(spec)
    if deadline is None and not resumed:
        notes = (*notes, *spec.warnings)
    draft, images, splits = (
        (spec, *_images(spec)) if resumed else _read(spec, affordable=spec.largest_input)
    )

    def shrink(side: int) -> None:
        nonlocal draft, images, splits
        draft, images, splits = _read(spec, affordable=side)

    plan = plan_or_shrink(
        lambda: planner(
            draft,
            _setup(
                draft, images, splits, device=device, site=site or ThisMachine(), workers=workers
            ),
            clock=time.time,
            deadline=deadline,
            stages=stages,
            keep_rungs=resumed,
        ),
        shrink,
        image_size=images.image_size,
        keep_size=resumed or spec.dataset.image_size is not None or spec.resource == "compute",
        spent=lambda: time.time() - began,
    )
    summary = _summary(draft, images, splits, plan, stages)
    return replace(summary, notes=(*notes, *summary.notes))


def _read(spec: SweepSpec, *, affordable: int | None = None) -> tuple[SweepSpec, ImageSet, Splits]:
    """Read the data: the specification with its choices made, the images and their splits."""
    spec = spec.with_values(
        dataset=resolve_dataset(spec.dataset, affordable=affordable, crops=spec.crops)
    )
    return spec, *_images(spec)


def _images(spec: SweepSpec) -> tuple[ImageSet, Splits]:
    images = load_dataset(spec.dataset)
    return images, make_splits(images, spec.splits)


def _setup(
    spec: SweepSpec,
    images: ImageSet,
    splits: Splits,
    *,
    device: str | None,
    site: Site,
    workers: int | None,
) -> Setup:
    cores = site.cores(device)
    threads = threads_per_trial(cores, concurrent=spec.concurrent, trials=spec.trial_count)
    probe = partial(site.probe, images=images, device=device, threads=threads)
    family_numerics = probe_families(spec.first_recipes(), probe, known={})
    numerics = next(iter(family_numerics.values()))
    in_all, on_one = trials_at_a_time(site, numerics, most=workers or spec.concurrent)
    return Setup(
        images=images,
        splits=splits,
        numerics=numerics,
        family_numerics=family_numerics,
        cores=cores,
        workers=in_all,
        workers_per_machine=on_one,
        site=site,
    )


def _summary(
    spec: SweepSpec, images: ImageSet, splits: Splits, plan: Plan, stages: Collection[str]
) -> Preview:
    classes = len(images.class_names)
    counts = {
        split: np.bincount(images.labels[getattr(splits, split)], minlength=classes)
        for split in SPLITS
    }
    return Preview(
        spec=spec,
        name=images.name,
        image_size=images.image_size,
        source_sizes=images.source_sizes,
        notes=notes_on(images, splits),
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
