"""The trainings of an ablation: every variant from every seed, and how long they may be.

They go seed by seed: when the time runs out, the seeds so far have all their variants, and a
comparison of those is a fair one.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from common.files import read_json
from common.seeds import derive_seed
from journal.history import History
from journal.states import STAGES, Kind
from search.ablation.ablation import SEEDS, Ablation, ablation_of, ablation_of_run, trial_of
from search.samplers.best import best_recipe
from search.samplers.fixed import left_of
from search.samplers.suggestions import Suggestion
from search.space.spec import SweepSpec, spec_of_run
from search.timetable.pace import START_SECONDS
from search.timetable.plan import Plan, TooShortError
from search.timetable.planner import SUSTAINED, Setup, handover_seconds, rehearsal_seconds
from search.timetable.preview import Preview, preview
from trainables.recipe import Recipe
from trainables.records import RunFolder, read_start
from trainables.stages import fewest_epochs

ABLATION_STAGES = ("sweep", "report")
"""Training the variants, and comparing them."""

DRAW_SECONDS = 10.0
"""Of the comparison, its table and its figure, on two cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variants:
    """All trainings of an ablation, as `search.tune.sweep.run_fixed` takes them."""

    ablation: Ablation
    recipe: Recipe
    """The full one."""
    deadline: float | None
    """In unix seconds: none is started that could not finish before it."""

    @property
    def kind(self) -> Kind:
        """What they count as."""
        return "search"

    def suggestions(self, history: History, *, root: int) -> list[Suggestion]:
        """Those to be gone on with, then seed after seed those that were never started."""
        variants = self.ablation.variants(self.recipe)
        fresh = (
            Suggestion(
                trial=trial_of(name, seed),
                number=seed * len(variants) + place,
                kind=self.kind,
                recipe=recipe,
                seed=derive_seed(root, "ablation", seed),
            )
            for seed in range(self.ablation.seeds)
            for place, (name, recipe) in enumerate(variants.items())
        )
        return left_of(fresh, history, kind=self.kind)


def asked_for(
    spec: SweepSpec,
    *,
    of: RunFolder | None = None,
    factors: Sequence[str] | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
) -> tuple[Ablation, SweepSpec]:
    """What is to be compared, and the specification of a run that trains it.

    The recipe is what all trials of `spec` start from, or the best of the run `of`; `epochs`
    replaces its own.

    Raises:
        SpecError: `factors` that the recipe has not, or seeds < 1.
        RunError: `of` has no trial that was scored.
    """
    recipe = spec.base_recipe() if of is None else recipe_of(of)
    if epochs is not None:
        recipe = recipe.with_values(epochs=epochs)
    ablation = ablation_of(recipe, names=factors, seeds=SEEDS if seeds is None else seeds)
    return ablation, ablation.applied(spec, recipe)


def begun_in(folder: RunFolder, *, seeds: int | None = None) -> tuple[Ablation, SweepSpec]:
    """As `asked_for`, of an ablation that was begun in `folder`; `seeds` may be more now.

    Raises:
        RunError: another kind of run is there.
    """
    spec = spec_of_run(folder)
    ablation = ablation_of_run(folder, spec)
    return replace(ablation, seeds=max(seeds or 0, ablation.seeds)), spec


def recipe_of(folder: RunFolder) -> Recipe:
    """The recipe of a run's best single net: by NLL on holdout, before a selection on val.

    Raises:
        RunError: no trial was scored.
    """
    if not folder.selection.exists():
        return best_recipe(folder)
    name = read_json(folder.selection)["best_single"]["name"]
    return read_start(folder.trial(name) / "start.json").recipe


def preview_variants(
    spec: SweepSpec,
    *,
    time_budget: float | None = None,
    device: str | None = None,
    **wanted: Any,
) -> tuple[Preview, Ablation]:
    """What an ablation would train; `wanted` is what `asked_for` takes. Raises as `preview`."""
    ablation, asked = asked_for(spec, **wanted)
    found = preview(
        asked,
        time_budget=time_budget,
        device=device,
        stages=ABLATION_STAGES,
        planner=partial(plan_variants, ablation=ablation, trials=ablation.trials),
    )
    return found, ablation


def plan_variants(
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
    """Rehearse the full recipe for some seconds, then plan as `variants_plan` does.

    Takes the place of `search.timetable.planner.make_plan`, with the same arguments; `trials` are
    those that are left. What a variant lacks rarely makes it slower, so that the full
    recipe's pace is taken for all.

    Raises:
        SpecError: a variant that the images do not allow.
        TooShortError: a deadline that is too near.
    """
    # Which import torch.
    from trainables.device.rehearsal import rehearse
    from trainables.preflight import check_recipes

    images, splits = setup.images, setup.splits
    if not keep_rungs:
        variants = ablation.variants(spec.base_recipe()).items()
        check_recipes(variants, image_size=images.image_size, class_names=images.class_names)
    found = rehearse(
        spec.base_recipe(),
        images=images,
        splits=splits,
        numerics=setup.numerics,
        workers=setup.workers_per_machine,
        seconds=rehearsal_seconds(None if deadline is None else deadline - clock()),
    )
    return variants_plan(
        spec,
        trials=trials,
        workers=setup.workers,
        epoch_seconds=SUSTAINED * found.train_seconds,
        handover_seconds=handover_seconds(found, splits),
        now=clock(),
        deadline=deadline,
        fixed=keep_rungs,
    )


def variants_plan(
    spec: SweepSpec,
    *,
    trials: int,
    workers: int,
    epoch_seconds: float,
    handover_seconds: float,
    now: float,
    deadline: float | None,
    fixed: bool = False,
) -> Plan:
    """As many epochs, up to the specification's own, as `trials` trainings have time for.

    `workers` train at a time, each an epoch in `epoch_seconds` and its predictions in
    `handover_seconds`. `now` and `deadline` are unix seconds. `fixed` keeps the epochs with
    which others were trained already; then what there is time for is trained.

    Raises:
        TooShortError: not even the shortest schedule of all trainings fits.
    """
    rounds = -(-trials // workers)
    epochs = spec.rungs[-1]
    over = START_SECONDS + DRAW_SECONDS
    if deadline is not None and not fixed:
        time = deadline - now - over
        each = time / max(1, rounds) - handover_seconds
        fewest = fewest_epochs(spec.base_recipe().schedule.stages)
        if each < fewest * epoch_seconds:
            least = over + rounds * (fewest * epoch_seconds + handover_seconds)
            raise TooShortError(
                f"the time left, {time + over:.0f} s, is too short for {trials} trainings, "
                f"{workers} at a time: with schedules of {fewest} epoch{'s' * (fewest > 1)} they "
                f"take {least:.0f} s here; give {math.ceil(least / 30) / 2:g}m or more, fewer "
                "--seeds or --factors"
            )
        epochs = min(epochs, int(each / epoch_seconds))
    training = rounds * (epochs * epoch_seconds + handover_seconds)
    if deadline is not None:
        training = min(training, max(0.0, deadline - now - over))
    seconds = {"sweep": START_SECONDS + training, "report": DRAW_SECONDS}
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
