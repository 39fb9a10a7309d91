"""Whether there is time for another trial, another rung, and so many seeds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.history import History, TrialHistory
from search.timing import TimeLeft, seeds_that_fit
from trainables.optim import plan_epochs
from trainables.recipe import Recipe

RUNGS = (3, 9, 27)


def trial(seconds_a_step: float) -> TrialHistory:
    recipe = Recipe(epochs=27).to_mapping()
    steps = {1, 2, 3}
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
        seeds_that_fit(count=4, epochs=20, workers=2, epoch_seconds=2.0, seconds=seconds)
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
        count=count, epochs=epochs, workers=workers, epoch_seconds=pace, seconds=seconds
    )
    assert 1 <= many <= count
    assert 1 <= long <= epochs
    rounds = math.ceil(many / workers)
    if (rounds, long) != (1, 1):
        assert rounds * long * pace <= seconds * (1 + 1e-9)
    if (many, long) != (count, epochs):
        # A longer schedule for as many would not fit, or there would be too many of half length.
        assert rounds * (long + 1) * pace > seconds * (1 - 1e-9) or long == epochs
