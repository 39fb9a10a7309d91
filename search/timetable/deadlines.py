"""Decide whether there is time for another trial, for a trial's next rung, and for the seeds.

Only trials that finish their whole schedule count, so a trial starts only if it can finish. It
continues after a rung, and resumes after an interruption, only if it can reach the next rung.
Epochs are expected to take as long as they have so far, weighted by the costs of their stages.
Until an epoch has been timed, every trial is allowed.
"""

import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from common.rungs import epochs_trained, nearest_end, steps_at_rungs
from common.stage_costs import EQUAL, StageCosts, cost_at_rungs
from journal.events import Kind
from journal.state import RunState
from journal.trial import Trial
from trainables.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """The deadlines of one kind of trials, in unix seconds; None for no deadline."""

    finish: float | None = None
    """A trial starts only if it would finish its whole schedule before this time."""
    stop: float | None = None
    """A trial continues after a rung only if it would reach the next one before this time, at
    which running trials are stopped."""
    clock: Callable[[], float] = time.time
    """Returns the current time, in unix seconds."""

    @property
    def passed(self) -> bool:
        """True once running trials must stop."""
        return self.stop is not None and self.clock() >= self.stop

    def allow_trial(
        self,
        rungs: tuple[int, ...],
        state: RunState,
        recipe: Recipe,
        *,
        kind: Kind = "search",
    ) -> bool:
        """Return whether a trial that starts now would finish its schedule in time.

        Its pace is that of the trials so far, or only of those with `recipe` if there are any.
        `recipe` may lack values that will be drawn: an epoch is expected to cost what it costs in
        its family. Features below a head are computed by the first trial of each worker.
        """
        if self.finish is None:
            return True
        values = recipe.to_mapping()
        pace = state.trials.pace(values) or 0.0
        costs = state.trials.costs_of(values)
        if state.trials.features_known(kind, values):
            costs = costs.without_entries
        whole = cost_at_rungs(rungs, recipe.schedule.cooldown_fraction, costs)[-1]
        return self.clock() + pace * whole <= self.finish

    def allow_rest(
        self, rungs: tuple[int, ...], state: RunState, trial: Trial, *, done: int
    ) -> bool:
        """Return whether an interrupted trial would reach its next rung in time.

        It resumes from a checkpoint after `done` steps, and computes the features below a head
        again. If the next rung is the last one, a lower one is enough, because the trial then
        shortens its schedule.
        """
        if self.stop is None:
            return True
        costs, fraction = state.trials.costs_of(trial.recipe), _cooldown_fraction(trial)
        pace = trial.pace(costs) or state.trials.pace(trial.recipe) or 0.0
        if trial.shortened_to is not None:
            rungs = (*rungs[:-1], trial.shortened_to)
        rungs = nearest_end(rungs, fraction, done=done)
        rung = next((steps for steps in steps_at_rungs(rungs, fraction) if steps > done), done)
        rest = epochs_trained(rungs, fraction)[done:rung]
        return self.clock() + pace * sum(costs.of_steps(rest)) <= self.stop

    def allow_next_rung(
        self, rungs: tuple[int, ...], trial: Trial, rung: int, costs: StageCosts = EQUAL
    ) -> bool:
        """Return whether a trial scored at `rung` would reach the next rung in time."""
        if self.stop is None or rung == rungs[-1]:
            return True
        cost = cost_at_rungs(rungs, _cooldown_fraction(trial), costs)
        index = rungs.index(rung)
        seconds = (trial.pace(costs) or 0.0) * (cost[index + 1] - cost[index])
        return self.clock() + seconds <= self.stop


def _cooldown_fraction(trial: Trial) -> float:
    return float(trial.recipe.get("cooldown_fraction", Recipe().schedule.cooldown_fraction))


def seeds_that_fit(
    *,
    count: int,
    epochs: int,
    workers: int,
    schedule_seconds: Callable[[int], float],
    seconds: float,
    min_epochs: int = 1,
) -> tuple[int, int]:
    """Return how many seeds, and with how many epochs, `workers` can train in `seconds`.

    In this order of preference: all seeds with all epochs; all seeds with at least half of
    them; fewer seeds with at least half of them; one round of seeds with as many epochs as fit,
    but at least `min_epochs`. `schedule_seconds` returns the time of a schedule of that many epochs
    in one worker.
    """

    def longest(rounds: int) -> int:
        lengths = range(min_epochs, epochs + 1)
        fitting = bisect_right(lengths, seconds, key=lambda n: rounds * schedule_seconds(n))
        return min_epochs - 1 + fitting

    half = max(min_epochs, -(-epochs // 2))
    rounds = -(-count // workers)
    while rounds > 1 and longest(rounds) < half:
        rounds -= 1
    return min(count, rounds * workers), max(min_epochs, longest(rounds))
