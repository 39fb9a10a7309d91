"""Whether there is time: for another trial, and for a trial's next rung.

A trial counts only if it finishes its whole schedule, so none is started that could not,
and at a rung none goes on that would not reach the next one. What an epoch takes is what it
took so far, stages that cost less counted so; before anything was measured, there is time.
"""

import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from common.stage_costs import EQUAL, StageCosts, cost_at_rungs
from journal.history import History, TrialHistory
from trainables.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLeft:
    """The end of one kind of trials. Unix seconds; None never comes."""

    deadline: float | None = None
    """No trial is started that would end after it."""
    latest: float | None = None
    """No rung is begun that would end after it, and what runs then is stopped."""
    clock: Callable[[], float] = time.time

    @property
    def over(self) -> bool:
        """Nothing may run any more."""
        return self.latest is not None and self.clock() >= self.latest

    def starts(self, rungs: tuple[int, ...], history: History, recipe: Recipe | None) -> bool:
        """Whether a trial that starts now would be through its schedule in time.

        Its pace is the median of the trials so far, of those with `recipe` if there are any.
        """
        if self.deadline is None:
            return True
        pace = history.pace(None if recipe is None else recipe.to_mapping()) or 0.0
        fraction = (recipe or Recipe()).schedule.cooldown_fraction
        whole = cost_at_rungs(rungs, fraction, history.costs)[-1]
        return self.clock() + pace * whole <= self.deadline

    def goes_on(
        self, rungs: tuple[int, ...], trial: TrialHistory, rung: int, costs: StageCosts = EQUAL
    ) -> bool:
        """Whether a trial that was scored at `rung` would be scored at the next one in time."""
        if self.latest is None or rung == rungs[-1]:
            return True
        fraction = float(trial.recipe.get("cooldown_fraction", Recipe().schedule.cooldown_fraction))
        cost = cost_at_rungs(rungs, fraction, costs)
        index = rungs.index(rung)
        seconds = (trial.pace(costs) or 0.0) * (cost[index + 1] - cost[index])
        return self.clock() + seconds <= self.latest


def seeds_that_fit(
    *,
    count: int,
    epochs: int,
    workers: int,
    each: Callable[[int], float],
    seconds: float,
    fewest: int = 1,
) -> tuple[int, int]:
    """How many seeds, and of how many epochs, `workers` can train in `seconds`.

    All of them and whole, if that fits; else all of them shortened, down to half their
    length; else fewer of at least half the length; at the least one round, however short, but
    of `fewest` epochs. `each` says how many seconds a schedule of so many epochs takes in one
    worker.
    """

    def longest(rounds: int) -> int:
        fits = range(fewest, epochs + 1)
        return fewest - 1 + bisect_right(fits, seconds, key=lambda n: rounds * each(n))

    half = max(fewest, -(-epochs // 2))
    rounds = -(-count // workers)
    while rounds > 1 and longest(rounds) < half:
        rounds -= 1
    return min(count, rounds * workers), max(fewest, longest(rounds))
