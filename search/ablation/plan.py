"""The plan of an ablation: as many epochs as all of its trials have time for."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from journal.events import STAGES
from search.ablation.ablation import Ablation, new_ablation, resumed_ablation
from search.space.spec import SweepSpec
from search.timetable.measuring import SUSTAINED, Setup, handover_seconds, rehearsal_seconds
from search.timetable.pace import START_SECONDS
from search.timetable.plan import Plan, TooShortError
from search.timetable.preview import Preview, preview
from search.timetable.site import Site
from trainables.records import RunFolder
from trainables.stages import fewest_epochs

ABLATION_STAGES = ("sweep", "report")
"""Stages of an ablation: training the variants, and comparing them."""

COMPARE_SECONDS = 10.0
"""Comparing the variants and drawing the table and the figure, on two cores."""


def preview_ablation(
    spec: SweepSpec,
    *,
    time_budget: float | None = None,
    device: str | None = None,
    site: Site | None = None,
    workers: int | None = None,
    resumed: RunFolder | None = None,
    of: RunFolder | None = None,
    seeds: int | None = None,
    **options: Any,
) -> tuple[Preview, Ablation]:
    """Return what an ablation would train; `of`, `seeds` and `options` are as in `new_ablation`.

    The ablation in the folder `resumed` is continued: only its missing trainings are forecast.

    Raises:
        SpecError: as `new_ablation`, `resumed_ablation` and `search.timetable.preview.preview`.
        RunError: as `new_ablation` and `resumed_ablation`.
        DataError: the data cannot be used.
    """
    if resumed is None:
        ablation, spec = new_ablation(spec, of=of, seeds=seeds, **options)
        trials = ablation.trials
    else:
        ablation = resumed_ablation(resumed, of=of, seeds=seeds)
        trials = ablation.trials_left(resumed)
    plan = preview(
        spec,
        time_budget=time_budget,
        device=device,
        site=site,
        workers=workers,
        stages=ABLATION_STAGES,
        planner=partial(plan_ablation, ablation=ablation, trials=trials),
        resumed=resumed is not None,
    )
    return plan, ablation


def plan_ablation(
    spec: SweepSpec,
    setup: Setup,
    *,
    ablation: Ablation,
    trials: int,
    clock: Callable[[], float],
    deadline: float | None = None,
    stages: Collection[str] = ABLATION_STAGES,  # noqa: ARG001 (of every Planner)
    keep_rungs: bool = False,
) -> Plan:
    """Rehearse the full recipe for a few seconds, then plan the remaining `trials`.

    Removing a factor rarely makes a recipe slower, so every variant is assumed to run at the full
    recipe's pace. The other arguments are those of `search.timetable.planner.make_plan`.

    Raises:
        SpecError: a variant does not suit the images.
        TooShortError: the deadline is too near.
    """
    from trainables.preflight import check_recipes  # imports torch

    images, splits = setup.images, setup.splits
    if not keep_rungs:
        variants = ablation.variants(spec.base_recipe()).items()
        check_recipes(
            variants,
            image_size=images.image_size,
            class_names=images.class_names,
            channels=images.channels,
        )
    measured = setup.site.rehearse(
        spec.base_recipe(),
        images=images,
        splits=splits,
        numerics=setup.numerics,
        workers=setup.workers_per_machine,
        seconds=rehearsal_seconds(None if deadline is None else deadline - clock()),
    )
    return plan_trials(
        spec,
        trials=trials,
        workers=setup.workers,
        epoch_seconds=SUSTAINED * measured.train_seconds,
        handover_seconds=handover_seconds(measured, splits),
        now=clock(),
        deadline=deadline,
        keep_epochs=keep_rungs,
    )


def plan_trials(
    spec: SweepSpec,
    *,
    trials: int,
    workers: int,
    epoch_seconds: float,
    handover_seconds: float,
    now: float,
    deadline: float | None,
    keep_epochs: bool = False,
) -> Plan:
    """Give `trials` trainings as many epochs as fit, up to the specification's own number.

    `workers` train at the same time, each an epoch in `epoch_seconds`, and predict in
    `handover_seconds`. `now` and `deadline` are unix seconds. `keep_epochs` keeps the epochs of
    trials that were trained already; then there may be no time for some trials.

    Raises:
        TooShortError: not even the shortest schedule of all trials fits.
    """
    rounds = -(-trials // workers)
    epochs = spec.rungs[-1]
    overhead = START_SECONDS + COMPARE_SECONDS
    if deadline is not None and not keep_epochs:
        time = deadline - now - overhead
        each = time / max(1, rounds) - handover_seconds
        fewest = fewest_epochs(spec.base_recipe().schedule.stages)
        if each < fewest * epoch_seconds:
            least = overhead + rounds * (fewest * epoch_seconds + handover_seconds)
            raise TooShortError(
                f"the time left, {time + overhead:.0f} s, is too short for {trials} trainings, "
                f"{workers} at a time: with schedules of {fewest} epoch{'s' * (fewest > 1)} they "
                f"take {least:.0f} s here",
                seconds=least,
                otherwise="fewer --seeds or --factors",
            )
        epochs = min(epochs, int(each / epoch_seconds))
    training = rounds * (epochs * epoch_seconds + handover_seconds)
    if deadline is not None:
        training = min(training, max(0.0, deadline - now - overhead))
    seconds = {"sweep": START_SECONDS + training, "report": COMPARE_SECONDS}
    return Plan(
        rungs=(epochs,),
        trials=trials,
        seeds=spec.members,
        student_epochs=spec.student_recipe().schedule.epochs,
        workers=workers,
        epoch_seconds=epoch_seconds,
        seconds={stage: seconds.get(stage, 0.0) for stage in STAGES},
        export_seconds=0.0,
        deadline=deadline,
    )
