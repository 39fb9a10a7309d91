"""Deadlines of trials and rungs, and the seeds that fit into the remaining time."""

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.stage_costs import StageCosts, cost_at_rungs
from journal.events import Kind
from journal.state import RunState
from journal.trial import Trial
from search.timetable.deadlines import Deadlines, seeds_that_fit
from tests.events import epoch, state_of, trial_ended, trial_started
from trainables.recipe import Recipe
from trainables.training.schedule import plan_epochs

RUNGS = (3, 9, 27)
BASE = Recipe(epochs=27)


def run_with(*seconds: float) -> RunState:
    """Return a run with one trial, whose epochs took these seconds."""
    recipe = Recipe(epochs=27).to_mapping()
    epochs = [epoch("t0000", step, seconds=s) for step, s in enumerate(seconds, start=1)]
    return state_of(trial_started("t0000", recipe=recipe), *epochs)


def trial(seconds_per_step: float) -> Trial:
    """Return a trial that has trained three epochs at this pace."""
    return run_with(*[seconds_per_step] * 3).trials["t0000"]


def at_zero(*, finish: float | None = None, stop: float | None = None) -> Deadlines:
    return Deadlines(finish=finish, stop=stop, clock=lambda: 0.0)


def test_without_deadlines_every_trial_is_allowed() -> None:
    deadlines = Deadlines()
    assert deadlines.allow_trial(RUNGS, run_with(*[1e9] * 3), BASE)
    assert deadlines.allow_next_rung(RUNGS, trial(1e9), 3)
    assert not deadlines.passed


def test_a_trial_starts_if_its_whole_schedule_finishes_in_time() -> None:
    whole = len(plan_epochs(RUNGS, Recipe(epochs=27)))
    for spare, allowed in ((0.5, True), (-0.5, False)):
        deadlines = Deadlines(finish=1000 + 2 * whole + spare, clock=lambda: 1000.0)
        assert deadlines.allow_trial(RUNGS, run_with(*[2.0] * 3), BASE) is allowed


def test_the_cooldown_of_the_recipe_counts() -> None:
    """Without cooldown branches, the schedule is shorter."""
    none = Recipe(epochs=27, cooldown_fraction=0.0)
    state = run_with(*[2.0] * 3)
    assert at_zero(finish=54.5).allow_trial(RUNGS, state, none)
    assert not at_zero(finish=54.5).allow_trial(RUNGS, state, BASE)


def test_a_shortened_schedule_has_the_pace_of_its_recipe() -> None:
    """An epoch takes 1 s with this recipe; the median of the others is 10 s."""
    state = run_with(*[1.0] * 3)
    for number in range(1, 4):
        other = Recipe(epochs=27, width=64 + number).to_mapping()
        state.apply(trial_started(f"t{number:04d}", recipe=other))
        state.apply(epoch(f"t{number:04d}", 1, seconds=10.0))
    assert at_zero(finish=10.5).allow_trial((9,), state, Recipe(epochs=9), kind="seed")
    assert not at_zero(finish=10.5).allow_trial((9,), state, Recipe(epochs=9, width=8))


def test_an_interrupted_trial_needs_the_time_to_its_next_rung() -> None:
    """Not that of its whole schedule."""
    plans = plan_epochs(RUNGS, Recipe(epochs=27))
    steps = {plan.rung: plan.step for plan in plans if plan.rung}
    state = run_with(*[2.0] * (steps[27] - 4))
    begun = state.trials["t0000"]
    for done, needed in ((steps[27] - 4, 8.0), (steps[9] - 1, 2.0), (0, 2.0 * steps[3])):
        for spare, allowed in ((0.5, True), (-0.5, False)):
            deadlines = at_zero(finish=0.0, stop=needed + spare)
            assert deadlines.allow_rest(RUNGS, state, begun, done=done) is allowed
    assert at_zero().allow_rest(RUNGS, state, begun, done=0)


def test_an_interrupted_trial_may_end_with_a_shorter_schedule() -> None:
    """After 4 of 9 epochs, the schedule can still be shortened to 6 epochs: 2 are left."""
    state = run_with(*[2.0] * 4)
    for spare, allowed in ((0.5, True), (-0.5, False)):
        deadlines = at_zero(stop=4.0 + spare)
        assert deadlines.allow_rest((9,), state, state.trials["t0000"], done=4) is allowed
    state.apply(epoch("t0000", 5, seconds=2.0, shortened_to=8))
    assert at_zero(stop=6.5).allow_rest((9,), state, state.trials["t0000"], done=5)
    assert not at_zero(stop=3.5).allow_rest((9,), state, state.trials["t0000"], done=5)


def test_an_interrupted_head_computes_its_features_again() -> None:
    costs = StageCosts(starts=(0,), epochs=(1.0,), entries=(30.0,))
    state = run_with(62.0, 2.0, 2.0)
    state.trials.costs = costs
    begun = state.trials["t0000"]
    for spare, allowed in ((0.5, True), (-0.5, False)):
        # The features, and one epoch: the schedule can be shortened to four.
        deadlines = at_zero(stop=62.0 + spare)
        assert deadlines.allow_rest((5,), state, begun, done=3) is allowed


def test_the_first_trial_starts_before_anything_is_measured() -> None:
    assert at_zero(finish=0.0).allow_trial(RUNGS, RunState(), BASE)


def test_a_trial_continues_if_it_reaches_its_next_rung_in_time() -> None:
    plans = plan_epochs(RUNGS, Recipe(epochs=27))
    steps = {plan.rung: plan.step for plan in plans if plan.rung}
    needed = 2.0 * (steps[9] - steps[3])
    for spare, allowed in ((0.5, True), (-0.5, False)):
        assert at_zero(stop=needed + spare).allow_next_rung(RUNGS, trial(2.0), 3) is allowed
    assert at_zero(stop=-1.0).allow_next_rung(RUNGS, trial(2.0), 27), "no rung is left"


@pytest.mark.parametrize(("stop", "passed"), [(None, False), (0.1, False), (0.0, True)])
def test_running_trials_stop_at_the_deadline(stop: float | None, passed: bool) -> None:
    assert at_zero(stop=stop).passed is passed


def test_time_is_forecast_from_the_costs_of_stages() -> None:
    """Two epochs of the head take 3 s, 1 s of it for features; an epoch of everything 10 s."""
    costs = StageCosts(starts=(0, 2), epochs=(0.1, 1.0), entries=(0.1, 0.0))
    known = run_with(2.0, 1.0)
    known.trials.costs = costs
    begun = known.trials["t0000"]
    assert begun.pace(costs) == pytest.approx(10.0)
    fraction = Recipe().schedule.cooldown_fraction
    whole = 10.0 * cost_at_rungs((2, 6), fraction, costs)[-1]
    for spare, allowed in ((0.5, True), (-0.5, False)):
        assert at_zero(finish=whole + spare).allow_trial((2, 6), known, BASE) is allowed
        left = at_zero(stop=whole - 3.0 + spare)
        assert left.allow_next_rung((2, 6), begun, 2, costs) is allowed


def test_the_first_trial_of_a_cheap_family_is_judged_by_its_own_cost() -> None:
    """An epoch of the first family takes 10 s, one of the second 2 s."""
    state = run_with(10.0, 10.0)
    state.trials.family_costs = {
        "": StageCosts(starts=(0,), epochs=(1.0,), entries=(0.0,)),
        "small": StageCosts(starts=(0,), epochs=(0.2,), entries=(0.0,)),
    }
    fraction = Recipe().schedule.cooldown_fraction
    whole = 10.0 * cost_at_rungs((2, 6), fraction, state.trials.family_costs["small"])[-1]
    for spare, allowed in ((0.5, True), (-0.5, False)):
        deadlines = at_zero(finish=whole + spare)
        small = Recipe(family="small", epochs=27)
        assert deadlines.allow_trial((2, 6), state, small) is allowed
        assert deadlines.allow_trial((2, 6), state, BASE) is False


def test_features_below_a_head_are_computed_by_the_first_trial_of_a_worker() -> None:
    """They take 60 s, then an epoch takes 2 s; this holds for the pace and for later trials."""
    costs = StageCosts(starts=(0,), epochs=(1.0,), entries=(30.0,))
    state = run_with(62.0, 2.0, 2.0)
    state.trials.costs = costs
    assert state.trials["t0000"].pace(costs) == pytest.approx(2.0)

    def needed(kind: Kind = "search") -> float:
        def fits(finish: float) -> bool:
            return at_zero(finish=finish).allow_trial((5,), state, BASE, kind=kind)

        within = [seconds for seconds in (10.5, 70.5) if fits(seconds)]
        assert not fits(within[0] - 1.0)
        return within[0] - 0.5

    state.apply(trial_started("t0001", recipe=state.trials["t0000"].recipe))
    assert needed() == 70.0
    state.apply(trial_ended("t0000", time=1.0))
    assert needed() == 10.0, "the worker that is free has them, whatever others are doing"
    assert needed("seed") == 70.0, "seeds have workers of their own"
    state.trials.halt(2.0)
    assert needed() == 70.0, "a resumed run has new workers"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (80.0, (4, 20)),  # two rounds of 20 epochs at 2 s
        (1000.0, (4, 20)),
        (60.0, (4, 15)),
        (40.0, (4, 10)),
        (39.0, (2, 19)),  # two rounds of half the length do not fit
        (5.0, (2, 2)),
        (0.0, (2, 1)),
        (-9.0, (2, 1)),
    ],
)
def test_seeds_get_shorter_and_then_fewer(seconds: float, expected: tuple[int, int]) -> None:
    fit = partial(seeds_that_fit, count=4, epochs=20, workers=2)
    assert fit(schedule_seconds=lambda n: 2.0 * n, seconds=seconds) == expected


@given(
    count=st.integers(1, 20),
    epochs=st.integers(1, 100),
    workers=st.integers(1, 8),
    pace=st.floats(0.01, 100),
    seconds=st.floats(0, 1e5),
)
def test_seeds_fit_and_waste_little(
    count: int, epochs: int, workers: int, pace: float, seconds: float
) -> None:
    number, length = seeds_that_fit(
        count=count,
        epochs=epochs,
        workers=workers,
        schedule_seconds=lambda n: n * pace,
        seconds=seconds,
    )
    assert 1 <= number <= count
    assert 1 <= length <= epochs
    rounds = math.ceil(number / workers)
    if (rounds, length) != (1, 1):
        assert rounds * length * pace <= seconds * (1 + 1e-9)
    if (number, length) != (count, epochs):
        # One epoch more for as many seeds would not fit.
        assert rounds * (length + 1) * pace > seconds * (1 - 1e-9) or length == epochs


def test_seeds_keep_an_epoch_of_their_last_stage() -> None:
    def schedule_seconds(epochs: int) -> float:
        return 5.0 + 0.5 * min(epochs, 4) + 2.0 * max(0, epochs - 4)

    fit = partial(
        seeds_that_fit,
        count=4,
        epochs=12,
        workers=2,
        schedule_seconds=schedule_seconds,
        min_epochs=5,
    )
    assert fit(seconds=46.0) == (4, 12)
    assert fit(seconds=40.0) == (4, 10)  # 2 × 19 s
    assert fit(seconds=21.0) == (2, 11)
    assert fit(seconds=1.0) == (2, 5)
