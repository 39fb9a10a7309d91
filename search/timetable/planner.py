"""Measure this machine's pace on the run's own nets and images, and plan the run by it."""

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from common.stage_costs import StageCosts
from journal.states import STAGES
from search.space.space import Space
from search.space.spec import SweepSpec
from search.timetable.pace import Pace
from search.timetable.plan import Plan, TooShortError, plan_run
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics, Recipe
from trainables.training.stages import starts

if TYPE_CHECKING:
    from trainables.device.rehearsal import Rehearsal

FEWEST_EPOCHS = 6
"""Of the longest schedule: with less, smaller images serve better."""

SMALL_SIDE = 32
"""Pixels a side below which images are not reduced to save time."""

USUAL_SECONDS = 1.0
"""Of one rehearsal, where there is no deadline."""

MOST_SECONDS = 4.0
"""Of one rehearsal, at most."""

SUSTAINED = 1.2
"""What an epoch takes over what a few seconds promise: 0.95 to 1.11 on CIFAR-10 in runs of an hour
on two quiet cores. A machine does other things too, and a schedule of one rung that is late is
cut off."""

SAVE_SECONDS = 0.5
"""Of writing a checkpoint and handing it over."""

BUDGET_SHARE = 0.01
"""Of the time that is left, for one rehearsal."""


def probed(spec: SweepSpec, images: ImageSet, *, device: str | None, threads: int) -> Numerics:
    """Which dtype and layout serve this machine best for the sweep's base recipe.

    `device` is `cpu`, `cuda`, or None for a GPU where there is one.
    """
    # torch takes seconds to import, and a run that only selects needs none of it.
    import torch

    from trainables.device.probe import probe

    return probe(
        spec.base_recipe(),
        classes=len(images.class_names),
        image_size=images.image_size,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        threads=threads,
    )


def plan_or_side(make: Callable[[], Plan], side: int, *, given: bool) -> Plan | int:
    """What `make` plans, or the smaller side in pixels with which to plan again.

    An epoch costs as the square of the side, and the longest schedule that a budget allows
    goes with the root of that. Many looks at small images teach more than a few at large
    ones, down to SMALL_SIDE; a side that was `given` is kept.

    Raises:
        SpecError: as `make_plan`; of time, where no smaller side is left to try.
    """
    try:
        plan = make()
    except TooShortError:
        if given or side <= SMALL_SIDE:
            raise
        return SMALL_SIDE
    longest = plan.rungs[-1]
    if given or plan.deadline is None or longest >= FEWEST_EPOCHS or side <= SMALL_SIDE:
        return plan
    return max(SMALL_SIDE, int(side * longest / FEWEST_EPOCHS) // 8 * 8)


def make_plan(
    spec: SweepSpec,
    *,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    cores: int,
    workers: int,
    together: int,
    clock: Callable[[], float],
    deadline: float | None = None,
    stages: Collection[str] = STAGES,
    fixed: bool = False,
) -> Plan:
    """Rehearse the base recipe and the student for a few seconds, then plan.

    `numerics` are the trials'; `cores` is how many this machine has; `workers` is how many
    trials run at a time, `together` how many of them on one machine. `clock` gives unix
    seconds, as does `deadline`. `stages` are those that will run; `fixed` keeps the rungs.

    Raises:
        SpecError: a recipe, or a value of the space, that the images do not allow.
        TooShortError: a deadline that is too near.
    """
    if not fixed:
        require_suitable(spec, images, stages=stages)
    pace = measure_pace(
        spec,
        images=images,
        splits=splits,
        numerics=numerics,
        cores=cores,
        workers=workers,
        together=together,
        seconds=rehearsal_seconds(None if deadline is None else deadline - clock()),
    )
    # Larger images are made smaller first, which saves more.
    fewest = FEWEST_EPOCHS if images.image_size <= SMALL_SIDE else 1
    return plan_run(
        spec, pace, now=clock(), deadline=deadline, stages=stages, fixed=fixed, fewest=fewest
    )


def require_suitable(spec: SweepSpec, images: ImageSet, *, stages: Collection[str]) -> None:
    """Refuse the base recipe, an end or a choice of the space, or the student for these images.

    What is refused in combination only fails its trial when it is drawn.

    Raises:
        SpecError: the place in the specification, the value and the mend.
    """
    from trainables.preflight import check_recipes  # which imports torch

    base = spec.base_recipe()
    recipes = [("", base)]
    for values in Space.from_mapping(spec.space, base=base).ends():
        told = ", ".join(f"{name} {value!r}" for name, value in values.items())
        recipes.append((f"space: {told}", base.with_values(**values)))
    if "distill" in stages:
        recipes.append(("student: recipe", spec.student_recipe()))
    check_recipes(recipes, image_size=images.image_size, class_names=images.class_names)


def rehearsal_seconds(left: float | None) -> float:
    """How long one rehearsal may take if `left` seconds are left; None where there is no end."""
    return USUAL_SECONDS if left is None else min(MOST_SECONDS, max(0.5, BUDGET_SHARE * left))


def measure_pace(
    spec: SweepSpec,
    *,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    cores: int,
    workers: int,
    together: int,
    seconds: float,
) -> Pace:
    """What an epoch of a trial, of the student and of a teacher's answers costs here."""
    from trainables.device.rehearsal import rehearse  # which imports torch

    recipe = spec.base_recipe()
    trial = rehearse(
        recipe,
        images=images,
        splits=splits,
        numerics=numerics,
        workers=together,
        seconds=seconds,
    )
    whole = replace(numerics, threads=max(numerics.threads, cores))
    alone = partial(rehearse, images=images, splits=splits, numerics=whole)
    student = alone(spec.student_recipe(), seconds=seconds)
    # Two threads of one process do not answer as much as two processes of one thread.
    member = alone(recipe, seconds=0.0)
    return Pace(
        workers=workers,
        epoch_seconds=SUSTAINED * trial.train_seconds,
        student_seconds=SUSTAINED * student.train_seconds,
        teacher_seconds=SUSTAINED * member.forward_seconds,
        predict_seconds=SUSTAINED * member.predict_seconds,
        handover_seconds=handover_seconds(trial, splits),
        holdout_share=len(splits.holdout) / len(splits.train),
        test_share=len(splits.test) / len(splits.train),
        costs=stage_costs(recipe, trial),
    )


def handover_seconds(measured: "Rehearsal", splits: Splits) -> float:
    """Of a trial's predictions for val and holdout, and its checkpoint, at a rung."""
    share = (len(splits.val) + len(splits.holdout)) / len(splits.train)
    return SAVE_SECONDS + SUSTAINED * measured.predict_seconds * share


def stage_costs(recipe: Recipe, measured: "Rehearsal") -> StageCosts:
    """What epochs in each stage of `recipe` cost, in epochs of the last one."""
    unit = measured.train_seconds
    return StageCosts(
        starts=tuple(starts(recipe.stages)),
        epochs=tuple(seconds / unit for seconds in measured.stage_seconds),
        entries=tuple(seconds / unit for seconds in measured.entry_seconds),
    )
