"""The cost of schedules whose stages differ in cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.rungs import epochs_trained, steps_at_rungs
from common.stage_costs import (
    EQUAL,
    StageCosts,
    cost_after,
    cost_at_rungs,
)
from trainables.recipe import Recipe
from trainables.stages import Stage, stage_starts
from trainables.training.schedule import plan_epochs

RUNGS = st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True).map(sorted).map(tuple)


@given(
    rungs=RUNGS,
    fraction=st.floats(0.0, 1.0),
    lengths=st.lists(st.integers(1, 6), max_size=3),
    data=st.data(),
)
def test_costs_agree_with_the_schedule_that_is_trained(
    rungs: tuple[int, ...], fraction: float, lengths: list[int], data: st.DataObject
) -> None:
    """Compare with the trainer's plan, step by step."""
    stages = (*(Stage(epochs=length) for length in lengths), Stage())
    many = st.lists(st.floats(0.01, 5), min_size=len(stages), max_size=len(stages)).map(tuple)
    each, entries = data.draw(many), data.draw(many)
    costs = StageCosts(starts=tuple(stage_starts(stages)), epochs=each, entries=entries)
    recipe = Recipe(epochs=rungs[-1], cooldown_fraction=fraction, stages=stages)
    total, stage, at_rungs = 0.0, None, []
    for plan in plan_epochs(rungs, recipe):
        total += each[plan.stage] + (0.0 if plan.stage == stage else entries[plan.stage])
        stage = plan.stage
        if plan.rung is not None:
            at_rungs.append(total)
    assert cost_at_rungs(rungs, fraction, costs) == pytest.approx(at_rungs)
    assert cost_after(rungs, fraction, costs)[-1] == pytest.approx(total)
    trained = epochs_trained(rungs, fraction)
    assert trained == tuple(plan.epoch for plan in plan_epochs(rungs, recipe))
    assert sum(costs.of_steps(trained)) == pytest.approx(total)


@given(rungs=RUNGS, fraction=st.floats(0.0, 1.0))
def test_without_stages_every_step_counts_one(rungs: tuple[int, ...], fraction: float) -> None:
    assert cost_at_rungs(rungs, fraction, EQUAL) == steps_at_rungs(rungs, fraction)


def test_a_head_is_cheap_once_the_features_are_computed() -> None:
    """Four epochs of a tenth after features of half an epoch, then five whole ones."""
    costs = StageCosts(starts=(0, 4), epochs=(0.1, 1.0), entries=(0.5, 0.0))
    assert cost_after((9,), 0.3, costs)[4] == pytest.approx(0.9)
    assert cost_at_rungs((9,), 0.3, costs) == pytest.approx((5.9,))
    # A rung in the second stage puts the trunk back into the first: features once more.
    again = cost_at_rungs((5, 9), 0.5, costs)  # 1 to 5, then 3 and 4 again, then 5 to 9
    assert again == pytest.approx((1.9, 1.9 + 0.5 + 0.2 + 5))


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5, unique=True).map(sorted),
    st.floats(0.0, 1.0),
)
def test_steps_at_rungs_agree_with_the_schedule(rungs: list[int], fraction: float) -> None:
    recipe = Recipe(epochs=rungs[-1], cooldown_fraction=fraction)
    plans = plan_epochs(rungs, recipe)
    expected = tuple(plan.step for plan in plans if plan.rung is not None)
    assert steps_at_rungs(rungs, fraction) == expected
