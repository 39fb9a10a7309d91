"""Measure the pace of a run: rehearse its networks where it will run, on its own images.

It rehearses the student, a teacher and the base recipe; with `resource: compute`, the first recipe
of every family.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from common.stage_costs import StageCosts
from search.space.spec import SweepSpec
from search.timetable.compute import FamilyPace, allot
from search.timetable.fitting import affordable_passes
from search.timetable.pace import EXPORT_IMAGES, EXPORT_SECONDS, Pace
from search.timetable.site import Site, ThisMachine
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.hyperparameters import Architecture
from trainables.recipe import Numerics, Recipe
from trainables.stages import stage_starts

if TYPE_CHECKING:
    from trainables.device.rehearsal import Rehearsal

USUAL_SECONDS = 1.0
"""Length of a rehearsal without a deadline."""

MOST_SECONDS = 4.0
"""Longest duration of a rehearsal."""

BUDGET_SHARE = 0.005
"""Share of the remaining time that the steps of one rehearsal may take; a sweep may need six
rehearsals."""

SUSTAINED = 1.2
"""Assumed ratio of an epoch's time to the rehearsal's estimate. It was 0.95 to 1.11 on CIFAR-10 in
one-hour runs on two quiet cores; the rest is a margin for other load, since late trials get fewer
epochs."""

SAVE_SECONDS = 0.5
"""Writing and handing over a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The data and the machines that a plan is made for."""

    images: ImageSet
    splits: Splits
    numerics: Numerics
    """Numerics of the trials."""
    family_numerics: Mapping[str, Numerics] = field(default_factory=dict)
    """Numerics of each family, if the sweep has families."""
    cores: int
    """Cores of a machine that trains."""
    workers: int
    """Number of concurrent trials."""
    workers_per_machine: int
    """Number of concurrent trials on one machine."""
    site: Site = field(default_factory=ThisMachine)
    """The machine or cluster where trials run and their pace is measured."""


class Measure(Protocol):
    """Measures a run's pace in place of the rehearsals."""

    def __call__(self, spec: SweepSpec, setup: Setup, *, seconds: float) -> Pace:
        """Measure for about `seconds` per network; see `measure_pace`."""


def probe_families(
    recipes: Mapping[str, Recipe],
    probe: Callable[[Recipe], Numerics],
    *,
    known: Mapping[str, Numerics],
) -> dict[str, Numerics]:
    """Return the numerics of each family: the known ones, or what `probe` chooses for its recipe.

    Families whose networks do the same work in training share one probe.
    """
    by_network: dict[Architecture, Numerics] = {}
    chosen = {}
    for name, recipe in recipes.items():
        network = recipe.architecture.training_work
        if name in known:
            by_network[network] = known[name]
        elif network not in by_network:
            by_network[network] = probe(recipe)
        chosen[name] = by_network[network]
    return chosen


def rehearsal_seconds(remaining: float | None) -> float:
    """Return the length of one rehearsal if `remaining` seconds are left.

    `remaining` is None without a deadline.
    """
    if remaining is None:
        return USUAL_SECONDS
    return min(MOST_SECONDS, max(0.5, BUDGET_SHARE * remaining))


def measure_families(
    spec: SweepSpec,
    setup: Setup,
    *,
    seconds: float,
    clock: Callable[[], float],
    deadline: float | None,
) -> tuple[SweepSpec, Pace]:
    """Rehearse every family; return the specification with equally costly epochs, and the pace.

    If a schedule of the specification's rungs has time for less than one pass per epoch, an epoch
    of the first family is a fraction of a pass; otherwise it has the passes of its recipe.
    """
    recipes = {name: r.with_values(passes=1.0) for name, r in spec.first_recipes().items()}
    measured = {
        name: setup.site.rehearse(
            recipe,
            images=setup.images,
            splits=setup.splits,
            numerics=setup.family_numerics.get(name, setup.numerics),
            workers=setup.workers_per_machine,
            seconds=seconds,
        )
        for name, recipe in recipes.items()
    }
    first, *_ = recipes
    whole = spec.with_values(
        families={name: each.with_recipe(passes=1.0) for name, each in spec.families.items()}
    )
    pace = measure_pace(whole, setup, seconds=seconds, trial=measured[first])
    passes, count = spec.base_recipe().schedule.passes, len(setup.splits.train)
    if deadline is not None:
        affordable = affordable_passes(spec, pace, now=clock(), deadline=deadline)
        passes = min(passes, affordable / spec.rungs[-1])
    fewest = min(1.0, recipes[first].optimizer.batch_size / count)
    families = {name: family_pace(recipe, measured[name]) for name, recipe in recipes.items()}
    allotments = allot(families, passes=max(fewest, passes), epochs=spec.rungs[-1], fewest=fewest)
    unit = families[first].epoch_seconds(allotments[first].passes)
    costs = {name: each.costs(allotments[name], unit=unit) for name, each in families.items()}
    spec = spec.with_values(
        families={
            name: family.with_recipe(**asdict(allotments[name]))
            for name, family in spec.families.items()
        }
    )
    passes = allotments[first].passes
    return spec, replace(
        pace,
        epoch_seconds=SUSTAINED * unit,
        student_seconds=pace.student_seconds * SUSTAINED * unit / pace.epoch_seconds,
        teacher_seconds=pace.teacher_seconds * passes,
        passes=passes,
        whole_pass_seconds=pace.epoch_seconds,
        costs=costs[first],
        families=costs,
        allotments=allotments,
    )


def family_pace(recipe: Recipe, measured: "Rehearsal") -> FamilyPace:
    """Return the times of a family whose first recipe was rehearsed with one pass per epoch."""
    return FamilyPace(
        starts=tuple(stage_starts(recipe.schedule.stages)),
        passes=measured.pass_seconds,
        scores=measured.score_seconds,
        entries=measured.entry_seconds,
    )


def measure_pace(
    spec: SweepSpec, setup: Setup, *, seconds: float, trial: "Rehearsal | None" = None
) -> Pace:
    """Rehearse a trial, the student and a teacher, each for about `seconds`.

    `trial` is the rehearsal of a trial, if there was one.
    """
    recipe, numerics, splits = spec.base_recipe(), setup.numerics, setup.splits
    timed = partial(setup.site.rehearse, images=setup.images, splits=splits)
    trial = trial or timed(
        recipe, numerics=numerics, workers=setup.workers_per_machine, seconds=seconds
    )
    whole = replace(numerics, threads=max(numerics.threads, setup.cores))
    student = timed(spec.expected_student_recipe(), numerics=whole, seconds=seconds)
    # Two threads of one process predict less than two processes of one thread.
    member = timed(recipe, numerics=whole, seconds=0.0)
    return Pace(
        workers=setup.workers,
        epoch_seconds=SUSTAINED * trial.train_seconds,
        student_seconds=SUSTAINED * student.train_seconds,
        teacher_seconds=SUSTAINED * member.forward_seconds,
        predict_seconds=SUSTAINED * member.predict_seconds,
        handover_seconds=handover_seconds(trial, splits),
        holdout_share=len(splits.holdout) / len(splits.train),
        test_share=len(splits.test) / len(splits.train),
        export_seconds=export_seconds(student, splits),
        costs=stage_costs(recipe, trial),
        passes=trial.passes,
        slowness=trial.slowness,
        driver_slowness=setup.site.driver_slowness(),
    )


def export_seconds(student: "Rehearsal", splits: Splits) -> float:
    """Return the time to export the students, and to calibrate and time their files."""
    predicting = EXPORT_IMAGES * SUSTAINED * student.forward_seconds / len(splits.train)
    return EXPORT_SECONDS * student.slowness + predicting


def handover_seconds(measured: "Rehearsal", splits: Splits) -> float:
    """Return the time to predict val and holdout and to save a checkpoint when a rung is scored."""
    share = (len(splits.val) + len(splits.holdout)) / len(splits.train)
    return SAVE_SECONDS + SUSTAINED * measured.predict_seconds * share


def stage_costs(recipe: Recipe, measured: "Rehearsal") -> StageCosts:
    """Return the cost of an epoch in each stage of `recipe`, in epochs of the last stage."""
    unit = measured.train_seconds
    return StageCosts(
        starts=tuple(stage_starts(recipe.schedule.stages)),
        epochs=tuple(seconds / unit for seconds in measured.stage_seconds),
        entries=tuple(seconds / unit for seconds in measured.entry_seconds),
    )
