"""Measure this machine's pace on the run's own nets and images, and plan the run by it."""

from collections.abc import Callable, Collection
from dataclasses import replace

from search.plan import STAGES, Pace, Plan, plan_run
from search.spec import SweepSpec
from trainables.imageset import ImageSet
from trainables.recipe import Numerics
from trainables.splits import Splits

USUAL_SECONDS = 1.0
"""Of one rehearsal, where there is no deadline."""

MOST_SECONDS = 4.0
"""Of one rehearsal, at most."""

BUDGET_SHARE = 0.01
"""Of the time that is left, for one rehearsal."""


def probed(spec: SweepSpec, images: ImageSet, *, device: str | None, threads: int) -> Numerics:
    """Which dtype and layout serve this machine best for the sweep's base recipe.

    `device` is `cpu`, `cuda`, or None for a GPU where there is one.
    """
    # torch takes seconds to import, and a run that only selects needs none of it.
    import torch

    from trainables.probe import probe

    return probe(
        spec.base_recipe(),
        classes=len(images.class_names),
        image_size=images.image_size,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        threads=threads,
    )


def make_plan(
    spec: SweepSpec,
    *,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    cores: int,
    clock: Callable[[], float],
    deadline: float | None = None,
    stages: Collection[str] = STAGES,
    fixed: bool = False,
) -> Plan:
    """Rehearse the base recipe and the student for a few seconds, then plan.

    `numerics` are the trials'; `cores` is how many there are in all. `clock` gives unix
    seconds, as does `deadline`. `stages` are those that will run; `fixed` keeps the rungs.

    Raises:
        SpecError: a recipe that the images do not allow, or a deadline that is too near.
    """
    seconds = USUAL_SECONDS
    if deadline is not None:
        seconds = min(MOST_SECONDS, max(0.5, BUDGET_SHARE * (deadline - clock())))
    pace = measure_pace(
        spec, images=images, splits=splits, numerics=numerics, cores=cores, seconds=seconds
    )
    return plan_run(spec, pace, now=clock(), deadline=deadline, stages=stages, fixed=fixed)


def measure_pace(
    spec: SweepSpec,
    *,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    cores: int,
    seconds: float,
) -> Pace:
    """What an epoch of a trial, of the student and of a teacher's answers costs here."""
    from trainables.rehearsal import rehearse  # which imports torch

    workers = concurrent_trials(spec, numerics, cores)
    recipe = spec.base_recipe()
    trial = rehearse(
        recipe,
        images=images,
        splits=splits,
        numerics=numerics,
        workers=workers,
        seconds=seconds,
    )
    whole = replace(numerics, threads=max(numerics.threads, cores))
    student = rehearse(
        spec.student_recipe(), images=images, splits=splits, numerics=whole, seconds=seconds
    )
    return Pace(
        workers=workers,
        epoch_seconds=trial.train_seconds,
        student_seconds=student.train_seconds,
        teacher_seconds=trial.forward_seconds / workers,
        holdout_share=len(splits.holdout) / len(splits.train),
        test_share=len(splits.test) / len(splits.train),
    )


def concurrent_trials(spec: SweepSpec, numerics: Numerics, cores: int) -> int:
    """Trials at a time on this machine: as specified, one a GPU, or as many as cores allow."""
    if spec.concurrent:
        return spec.concurrent
    if numerics.device.startswith("cuda"):
        import torch

        return max(1, torch.cuda.device_count())
    return max(1, cores // numerics.threads)
