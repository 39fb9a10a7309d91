"""Plan a run: measure the pace of its networks, and fit their schedules to the time."""

import math
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Protocol

from journal.events import STAGES
from search.space.spec import SweepSpec
from search.timetable.fitting import FEWEST_PASSES
from search.timetable.measuring import (
    Measure,
    Setup,
    measure_families,
    measure_pace,
    rehearsal_seconds,
)
from search.timetable.pace import measuring_seconds, with_robustness
from search.timetable.plan import Plan, TooShortError, plan_run
from trainables.data.image_set import ImageSet

MIN_EPOCHS = 6
"""Length of a schedule, in epochs, below which smaller images give better networks."""

SMALL_SIDE = 32
"""Side in pixels below which images are not made smaller to save time."""


class Planner(Protocol):
    """Plans a run; `make_plan` is the usual one."""

    def __call__(
        self,
        spec: SweepSpec,
        setup: Setup,
        *,
        clock: Callable[[], float],
        deadline: float | None,
        stages: Collection[str],
        keep_rungs: bool,
    ) -> Plan:
        """Plan `stages` to end by `deadline`; see `make_plan`."""


def make_plan(
    spec: SweepSpec,
    setup: Setup,
    *,
    clock: Callable[[], float],
    deadline: float | None = None,
    stages: Collection[str] = STAGES,
    keep_rungs: bool = False,
    measure: Measure | None = None,
) -> Plan:
    """Rehearse the run's networks for a few seconds each, then plan the run.

    `clock` and `deadline` are in unix seconds. `stages` are the stages that will run;
    `keep_rungs` keeps the specification's rungs. `measure` replaces the rehearsals.

    Raises:
        SpecError: a recipe, or a value of the space, does not suit the images.
        TooShortError: the deadline is too near.
    """
    if not keep_rungs:
        require_suitable(spec, setup.images, stages=stages)
    remaining = None if deadline is None else deadline - clock()
    seconds = rehearsal_seconds(remaining)
    if measure is None and spec.resource == "compute" and not keep_rungs:
        spec, pace = measure_families(spec, setup, seconds=seconds, clock=clock, deadline=deadline)
    else:
        pace = (measure or measure_pace)(spec, setup, seconds=seconds)
    pace = with_robustness(
        spec,
        replace(pace, measuring_seconds=measuring_seconds(spec, remaining)),
        images=min(len(setup.splits.holdout), len(setup.splits.test)),
        train=len(setup.splits.train),
        seconds=remaining,
    )
    # The number of members is reduced only where images are already small: larger ones are shrunk.
    min_epochs = MIN_EPOCHS if setup.images.image_size <= SMALL_SIDE else 1
    if spec.resource == "compute":
        min_epochs = math.ceil(FEWEST_PASSES / pace.passes)
    return plan_run(
        spec,
        pace,
        now=clock(),
        deadline=deadline,
        stages=stages,
        keep_rungs=keep_rungs,
        min_epochs=min_epochs,
    )


def plan_or_shrink(
    plan: Callable[[], Plan],
    shrink: Callable[[int], object],
    *,
    image_size: int,
    keep_size: bool,
    spent: Callable[[], float] = lambda: 0.0,
) -> Plan:
    """Plan a run; if its schedules would be too short, make the images smaller and plan again.

    The time of an epoch grows with the square of the side, and the longest schedule with the square
    root of the budget. Many epochs of small images teach more than a few of large ones,
    down to SMALL_SIDE. `shrink` reads the images again, at the given side in pixels or near it;
    `keep_size` forbids this, e.g. because the user chose `image_size`, the current side. `spent`
    gives the seconds of the time budget that have passed, which the advice in an error includes.

    Raises:
        SpecError: as `plan`; TooShortError only where the images cannot be made smaller.
    """
    try:
        return _planned(plan, shrink, image_size, keep_size or image_size <= SMALL_SIDE)
    except TooShortError as error:
        raise error.after(spent()) from None


def _planned(
    plan: Callable[[], Plan], shrink: Callable[[int], object], image_size: int, keep_size: bool
) -> Plan:
    try:
        first = plan()
    except TooShortError:
        if keep_size:
            raise
        shrink(SMALL_SIDE)
        return plan()
    longest = first.rungs[-1]
    if keep_size or first.deadline is None or longest >= MIN_EPOCHS:
        return first
    shrink(max(SMALL_SIDE, int(image_size * longest / MIN_EPOCHS) // 8 * 8))
    return plan()


def require_suitable(spec: SweepSpec, images: ImageSet, *, stages: Collection[str]) -> None:
    """Refuse a base recipe, a limit or choice of the space, or a student that the images rule out.

    Combinations are not checked: an impossible one fails only the trial that draws it.

    Raises:
        SpecError: names the place in the specification, the value, and the fix.
    """
    from trainables.preflight import check_recipes  # imports torch

    space = spec.search_space()
    recipes = [
        (f"families: {name}" if name else "", recipe)
        for name, recipe in (spec.family_recipes() or {"": spec.base_recipe()}).items()
    ]
    for values in space.ends():
        drawn = ", ".join(f"{name} {value!r}" for name, value in values.items())
        recipes.append((f"space: {drawn}", space.recipe(values)))
    if "distill" in stages:
        recipes.append(("student: recipe", spec.student_recipe()))
    check_recipes(
        recipes,
        image_size=images.image_size,
        class_names=images.class_names,
        channels=images.channels,
    )
