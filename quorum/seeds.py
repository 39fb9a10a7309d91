"""Seeds of the best configuration: which it is, and how many of them there is time for."""

import dataclasses
import time

from common.stage_costs import cost_at_rungs
from journal.history import History
from quorum.workspace.checks import require_same_weights
from quorum.workspace.run import Run
from search.samplers.best import best_recipe
from search.samplers.fixed import Seeds
from search.timetable.deadlines import seeds_that_fit
from search.tune.session import cluster_capacity
from trainables.recipe import Recipe
from trainables.stages import fewest_epochs

TOLERANCE = 1.1
"""Seeds that take this much longer than planned are not shortened: no forecast is exacter."""


def planned_seeds(this: Run, *, deadline: float | None) -> Seeds:
    """The seeds that there is time for, of the best configuration so far.

    Seeds of one ensemble are trained alike: those that were begun before decide the recipe,
    also after a resume with more time. `deadline` (unix seconds) is when they are cut off.

    Raises:
        RunError: no trial was scored at any rung, or weights to begin with have changed.
    """
    require_same_weights(this.folder, this.journal.events, this.spec)
    recipe, count = _planned(this)
    return Seeds(recipe=recipe, count=count, deadline=deadline)


def _planned(this: Run) -> tuple[Recipe, int]:
    history = History(this.journal.events)
    begun = history.of("seed")
    if begun:
        return Recipe.from_mapping(begun[0].recipe, where=begun[0].trial), this.spec.members
    best = best_recipe(this.folder)
    end = this.end_of("seeds")
    pace = history.pace(best.to_mapping())
    if this.plan is None or end is None or not pace:
        return best, this.spec.members

    def each(epochs: int) -> float:
        return pace * cost_at_rungs((epochs,), best.schedule.cooldown_fraction, history.costs)[-1]

    workers = this.spec.concurrent or cluster_capacity().trials_at_a_time(this.numerics)
    count, epochs = seeds_that_fit(
        count=this.spec.members,
        epochs=best.schedule.epochs,
        workers=workers,
        schedule_seconds=each,
        seconds=TOLERANCE * (end - time.time()),
        min_epochs=fewest_epochs(best.schedule.stages),
    )
    seconds = {**this.plan.seconds, "seeds": -(-count // workers) * each(epochs)}
    revised = dataclasses.replace(this.plan, seeds=count, rungs=(epochs,), seconds=seconds)
    this.revise(revised, at="seeds")
    return best.with_values(epochs=epochs), count
