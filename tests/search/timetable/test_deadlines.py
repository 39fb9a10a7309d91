"""Whether there is time for another trial, another rung, and so many seeds."""

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.stage_costs import StageCosts, cost_at_rungs
from journal.history import History, TrialHistory
from search.timetable.deadlines import TimeLeft, seeds_that_fit
from trainables.recipe import Recipe
from trainables.training.optimizers import plan_epochs

RUNGS = (3, 9, 27)


def trial(seconds_a_step: float) -> TrialHistory:
    recipe = Recipe(epochs=27).to_mapping()
    steps = {1: 1, 2: 2, 3: 3}
    return TrialHistory(
        trial="t0", number=0, kind="search", recipe=recipe, seed=0, steps=steps,
        seconds=seconds_a_step * len(steps),
    )  # fmt: skip


def history(*trials: TrialHistory) -> History:
    found = History()
    found.trials = {one.trial: one for one in trials}
    return found


def test_without_an_end_there_is_always_time() -> None:
    never = TimeLeft()
    assert never.starts(RUNGS, history(trial(1e9)), None)
    assert never.goes_on(RUNGS, trial(1e9), 3)
    assert not never.over


def test_a_trial_starts_if_its_whole_schedule_ends_in_time() -> None:
    whole = len(plan_epochs(RUNGS, Recipe(epochs=27)))
    for spare, starts in ((0.5, True), (-0.5, False)):
        left = TimeLeft(deadline=1000 + 2 * whole + spare, clock=lambda: 1000.0)
        assert left.starts(RUNGS, history(trial(2.0)), None) is starts
    assert TimeLeft(deadline=0.0, clock=lambda: 0.0).starts(RUNGS, history(), None)


def test_a_trial_goes_on_if_its_next_rung_ends_in_time() -> None:
    plans = plan_epochs(RUNGS, Recipe(epochs=27))
    steps = {plan.rung: plan.step for plan in plans if plan.rung}
    needed = 2.0 * (steps[9] - steps[3])
    for spare, goes_on in ((0.5, True), (-0.5, False)):
        left = TimeLeft(latest=needed + spare, clock=lambda: 0.0)
        assert left.goes_on(RUNGS, trial(2.0), 3) is goes_on
    assert TimeLeft(latest=-1.0, clock=lambda: 0.0).goes_on(RUNGS, trial(2.0), 27)
    assert TimeLeft(latest=0.0, clock=lambda: 0.0).over


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (80.0, (4, 20)),  # two rounds of 20 epochs at 2 s
        (1000.0, (4, 20)),
        (60.0, (4, 15)),
        (40.0, (4, 10)),
        (39.0, (2, 19)),  # half of the length does not fit twice
        (5.0, (2, 2)),
        (0.0, (2, 1)),
        (-9.0, (2, 1)),
    ],
)
def test_seeds_get_shorter_and_then_fewer(seconds: float, expected: tuple[int, int]) -> None:
    assert (
        seeds_that_fit(count=4, epochs=20, workers=2, each=lambda n: 2.0 * n, seconds=seconds)
        == expected
    )


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
    many, long = seeds_that_fit(
        count=count, epochs=epochs, workers=workers, each=lambda n: n * pace, seconds=seconds
    )
    assert 1 <= many <= count
    assert 1 <= long <= epochs
    rounds = math.ceil(many / workers)
    if (rounds, long) != (1, 1):
        assert rounds * long * pace <= seconds * (1 + 1e-9)
    if (many, long) != (count, epochs):
        # A longer schedule for as many would not fit, or there would be too many of half length.
        assert rounds * (long + 1) * pace > seconds * (1 - 1e-9) or long == epochs


def test_a_cheap_stage_says_nothing_bad_of_a_dear_one_and_nothing_good() -> None:
    """Two epochs of the head in 2 s and 1 s, of which 1 s were for features; then 10 s each."""
    costs = StageCosts(starts=(0, 2), epochs=(0.1, 1.0), entries=(0.1, 0.0))
    begun = trial(0.0)
    begun.steps, begun.seconds = {1: 1, 2: 2}, 3.0
    assert begun.pace(costs) == pytest.approx(10.0)
    seen = history(begun)
    seen.costs = costs
    fraction = Recipe().schedule.cooldown_fraction
    whole = 10.0 * cost_at_rungs((2, 6), fraction, costs)[-1]
    rest = whole - 3.0
    for spare, yes in ((0.5, True), (-0.5, False)):
        left = TimeLeft(deadline=whole + spare, clock=lambda: 0.0)
        assert left.starts((2, 6), seen, None) is yes
        left = TimeLeft(latest=rest + spare, clock=lambda: 0.0)
        assert left.goes_on((2, 6), begun, 2, costs) is yes


def test_seeds_are_not_shortened_into_their_first_stage() -> None:
    def each(epochs: int) -> float:
        return 5.0 + 0.5 * min(epochs, 4) + 2.0 * max(0, epochs - 4)

    fit = partial(seeds_that_fit, count=4, epochs=12, workers=2, each=each, fewest=5)
    assert fit(seconds=46.0) == (4, 12)
    assert fit(seconds=40.0) == (4, 10)  # 2 × 19 s
    assert fit(seconds=21.0) == (2, 11)
    assert fit(seconds=1.0) == (2, 5)
