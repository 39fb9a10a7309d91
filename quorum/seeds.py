"""Seeds of the best configuration: which it is, and how many of them there is time for."""

import dataclasses
import time
from collections import Counter

from common.errors import RunError
from common.stage_costs import cost_at_rungs
from journal.history import History
from quorum.workspace.checks import require_same_weights
from quorum.workspace.run import Run
from search.samplers.fixed import Seeds
from search.timetable.deadlines import seeds_that_fit
from search.tune.session import cluster_capacity
from trainables.recipe import Recipe
from trainables.records import RunFolder, read_start
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
        each=each,
        seconds=TOLERANCE * (end - time.time()),
        fewest=fewest_epochs(best.schedule.stages),
    )
    seconds = {**this.plan.seconds, "seeds": -(-count // workers) * each(epochs)}
    revised = dataclasses.replace(this.plan, seeds=count, rungs=(epochs,), seconds=seconds)
    this.revise(revised, at="seeds")
    return best.with_values(epochs=epochs), count


def best_recipe(folder: RunFolder) -> Recipe:
    """The searched configuration with the lowest val NLL at the highest rung reached.

    Raises:
        RunError: no trial was scored at any rung.
    """
    scored = [
        (-record.rung, record.metrics["val_nll"], record.trial)
        for record in folder.records()
        if record.kind == "search" and record.rung is not None and record.status != "failed"
    ]
    if not scored:
        raise RunError(f"{folder.root}: no trial was scored; {_why_none(folder)}")
    return read_start(folder.trial(min(scored)[2]) / "start.json").recipe


def _why_none(folder: RunFolder) -> str:
    reasons = Counter(record.reason for record in folder.records() if record.status == "failed")
    if not reasons:
        return "give the sweep more time"
    (reason, count), *_ = reasons.most_common(1)
    return f"of {reasons.total()} that failed, {count} did by this: {reason}"
