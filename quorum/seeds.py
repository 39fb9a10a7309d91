"""Plan the seeds of the best configuration: how many, and how long, in the time left."""

import dataclasses
import time

from common.stage_costs import cost_at_rungs
from quorum.workspace.checks import require_same_weights
from quorum.workspace.run import Run
from search.samplers.best import best_recipe
from search.samplers.fixed import Seeds
from search.timetable.deadlines import seeds_that_fit
from search.timetable.site import trials_at_a_time
from trainables.recipe import Recipe
from trainables.stages import fewest_epochs

TOLERANCE = 1.1
"""Seeds are shortened only if they would take this many times as long as planned: forecasts err."""


def plan_seeds(run: Run, *, deadline: float | None) -> Seeds:
    """Return the seeds of the best configuration that there is time for.

    All seeds of an ensemble are trained with one recipe: once a seed has started, its recipe holds
    for the others, even after a resume with more time. They stop at `deadline` (unix seconds).

    Raises:
        RunError: no trial was scored at any rung, or the initial weights have changed.
    """
    require_same_weights(run.folder, run.state, run.spec)
    recipe, count = _plan(run)
    return Seeds(recipe=recipe, count=count, deadline=deadline)


def _plan(run: Run) -> tuple[Recipe, int]:
    started = run.state.trials.of_kind("seed")
    if started:
        return Recipe.from_mapping(started[0].recipe, where=started[0].name), run.spec.members
    best = best_recipe(run.folder)
    end = run.end_of("seeds")
    pace = run.state.trials.pace(best.to_mapping())
    if run.plan is None or end is None or not pace:
        return best, run.spec.members

    def each(epochs: int) -> float:
        return (
            pace
            * cost_at_rungs(
                (epochs,),
                best.schedule.cooldown_fraction,
                run.state.trials.costs_of(best.to_mapping()),
            )[-1]
        )

    workers, _ = trials_at_a_time(run.site, run.numerics, most=run.workers)
    count, epochs = seeds_that_fit(
        count=run.spec.members,
        epochs=best.schedule.epochs,
        workers=workers,
        schedule_seconds=each,
        seconds=TOLERANCE * (end - time.time()),
        min_epochs=fewest_epochs(best.schedule.stages),
    )
    seconds = {**run.plan.seconds, "seeds": -(-count // workers) * each(epochs)}
    revised = dataclasses.replace(run.plan, seeds=count, rungs=(epochs,), seconds=seconds)
    run.revise(revised, at="seeds")
    return best.with_values(epochs=epochs), count
