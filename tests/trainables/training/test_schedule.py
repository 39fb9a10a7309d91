"""The schedule: its epochs agree with a simulation, and its learning rates are continuous."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SpecError
from common.rungs import cooldown_epochs
from trainables.recipe import Recipe
from trainables.stages import Stage
from trainables.training.schedule import learning_rate, lookahead_step_size, plan_epochs

rung_lists = st.sets(st.integers(1, 40), min_size=1, max_size=4).map(sorted)


def test_plan_of_three_rungs() -> None:
    plans = plan_epochs((3, 9, 27), Recipe(epochs=27, cooldown_fraction=0.34))
    assert len(plans) == 18 + 1 + 3 + 9
    assert [p.step for p in plans if p.rung] == [3, 10, 31]
    assert [p.step for p in plans if p.restore] == [4, 11]
    assert [p.step for p in plans if p.keep] == [3, 8]
    assert [p.epoch for p in plans][:11] == [1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 7]
    assert {p.branch for p in plans if p.phase == "trunk"} == {None}


@given(rungs=rung_lists, fraction=st.floats(0, 1))
def test_every_rung_ends_an_unbroken_training(rungs: list[int], fraction: float) -> None:
    recipe = Recipe(epochs=rungs[-1], cooldown_fraction=fraction)
    trained: list[tuple[int, str]] = []  # epochs and phases of the current weights
    aside: list[tuple[int, str]] | None = None
    scored = []
    for step, plan in enumerate(plan_epochs(rungs, recipe), start=1):
        assert plan.step == step
        if plan.restore:
            assert aside is not None
            trained = list(aside)
        if plan.keep:
            aside = list(trained)
        trained.append((plan.epoch, plan.phase))
        if plan.rung is not None:
            start = plan.rung - cooldown_epochs(plan.rung, recipe.schedule.cooldown_fraction)
            epochs = range(1, plan.rung + 1)
            assert trained == [(e, "trunk" if e <= start else "cooldown") for e in epochs]
            assert plan.epoch == plan.rung == (plan.branch if fraction else plan.rung)
            scored.append(plan.rung)
    assert scored == rungs


@pytest.mark.parametrize("rungs", [(), (0, 3), (3, 3), (9, 3)])
def test_rungs_that_do_not_rise_are_refused(rungs: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match="rungs must be rising"):
        plan_epochs(rungs, Recipe(epochs=3))


def test_the_last_rung_must_be_the_recipes_epochs() -> None:
    with pytest.raises(SpecError, match=r"last of rungs \[3, 9\] must be epochs = 27"):
        plan_epochs((3, 9), Recipe(epochs=27))


@given(rungs=rung_lists, fraction=st.floats(0, 1), warmup=st.floats(0, 5))
def test_rates_stay_within_the_peak_and_move_without_jumps(
    rungs: list[int], fraction: float, warmup: float
) -> None:
    recipe = Recipe(epochs=rungs[-1], cooldown_fraction=fraction, warmup_epochs=warmup)
    peak = recipe.optimizer.peak_lr
    plans = plan_epochs(rungs, recipe)
    for plan in plans:
        rates = [learning_rate(plan, i / 8, recipe) for i in range(9)]
        assert all(-1e-9 <= rate <= peak * (1 + 1e-9) for rate in rates)
        if plan.rung is not None and fraction > 0:
            assert rates[-1] == pytest.approx(0, abs=1e-9)
    for before, after in pairwise(plans):
        if not after.restore:
            end = learning_rate(before, 1.0, recipe)
            assert end == pytest.approx(learning_rate(after, 0.0, recipe), abs=1e-9)


def test_the_rate_warms_up_stays_constant_and_falls() -> None:
    recipe = Recipe(
        epochs=10, lr_per_1024=2.0, batch_size=512, warmup_epochs=2, cooldown_fraction=0.5
    )
    rates = [learning_rate(plan, 0.5, recipe) for plan in plan_epochs((10,), recipe)]
    assert rates == pytest.approx([0.25, 0.75, 1, 1, 1, 0.9, 0.7, 0.5, 0.3, 0.1])


def test_lookahead_averages_more_and_more_towards_the_end_of_a_cooldown() -> None:
    recipe = Recipe(epochs=8, lookahead=5, lookahead_decay=0.95, cooldown_fraction=0.5)
    plans = plan_epochs((4, 8), recipe)
    sizes = [lookahead_step_size(plan, 1.0, recipe) for plan in plans]
    branch = [1 - 0.95**5 * (epoch / 4) ** 3 for epoch in (3, 4)]
    last = [1 - 0.95**5 * (epoch / 8) ** 3 for epoch in (5, 6, 7, 8)]
    assert sizes == pytest.approx([1, 1, *branch, 1, 1, *last])
    plain = recipe.with_values(lookahead_decay=0.0)
    assert {lookahead_step_size(plan, 1.0, plain) for plan in plans} == {0.5}


def test_every_stage_warms_up_to_its_own_rate() -> None:
    stages = (Stage(epochs=3), Stage(lr_scale=0.1, values={"warmup_epochs": 2}))
    recipe = Recipe(epochs=8, adamw_lr=1.0, optimizer="adamw", cooldown_fraction=0.2, stages=stages)
    assert Recipe.from_mapping(recipe.to_mapping()) == recipe
    plans = plan_epochs((8,), recipe)
    assert [plan.stage for plan in plans] == [0, 0, 0, 1, 1, 1, 1, 1]
    rates = [learning_rate(plan, 0.5, recipe) for plan in plans]
    assert rates == pytest.approx([0.5, 1, 1, 0.025, 0.075, 0.1, 0.075, 0.025])
