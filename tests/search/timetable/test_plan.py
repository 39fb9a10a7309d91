"""What a time budget buys."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SpecError
from common.stage_costs import StageCosts, cost_at_rungs
from journal.states import STAGES
from search.space.spec import SweepSpec, load_spec
from search.timetable.pace import Pace, mean_cost, overhead_seconds
from search.timetable.plan import (
    DISTILL_SHARES,
    LONGEST,
    SEEDS_SHARE,
    Plan,
    drop_low_rungs,
    plan_run,
    shorten_rungs,
)
from search.timetable.planner import plan_or_shrink
from tests.tiny import tiny_spec
from trainables.recipe import Recipe
from trainables.training.schedule import plan_epochs

PACE = Pace(
    workers=2,
    epoch_seconds=26.0,
    student_seconds=13.0,
    teacher_seconds=4.0,
    predict_seconds=4.0,
    handover_seconds=1.0,
    holdout_share=0.1,
    test_share=0.25,
)
SPEC = SweepSpec(name="x", members=4)


def planned(minutes: float, *, spec: SweepSpec = SPEC, pace: Pace = PACE, **more: object) -> Plan:
    return plan_run(spec, pace, now=1000.0, deadline=1000.0 + 60 * minutes, **more)  # type: ignore[arg-type]


def test_stages_fill_the_budget_and_end_one_after_the_other() -> None:
    budget = planned(60)
    assert sum(budget.seconds.values()) == pytest.approx(3600)
    ends = [budget.end_of(stage) for stage in STAGES]
    assert ends == sorted(ends, key=float)  # type: ignore[arg-type]
    assert ends[-1] == 1000 + 3600
    assert min(budget.seconds.values()) > 0


@pytest.mark.parametrize(
    ("minutes", "rungs"), [(10, (1, 2)), (60, (5, 16)), (120, (3, 8, 23)), (360, (4, 13, 40))]
)
def test_longer_budgets_have_longer_schedules(minutes: float, rungs: tuple[int, ...]) -> None:
    assert planned(minutes).rungs == rungs


def test_short_budgets_have_fewer_members_rather_than_schedules_of_an_epoch() -> None:
    hasty, patient = planned(10), planned(10, min_epochs=6)
    assert (hasty.rungs, hasty.seeds) == ((1, 2), 4)
    assert (patient.rungs, patient.seeds) == ((1, 4), 2)
    assert patient.apply_to(SPEC).members == 2
    assert planned(60, min_epochs=6) == planned(60)
    assert planned(10, min_epochs=6, keep_rungs=True).seeds == 4


@given(
    seconds=st.floats(1, 1e6), members=st.integers(1, 8), factor=st.integers(2, 4),
    rungs=st.sampled_from([(9,), (3, 9), (1, 3, 9), (2, 6, 18, 54)]),
)  # fmt: skip
def test_rungs_leave_an_ensemble_enough_to_choose_from(
    seconds: float, members: int, factor: int, rungs: tuple[int, ...]
) -> None:
    spec = SPEC.with_values(members=members, reduction_factor=factor)

    def finishing(kept: tuple[int, ...]) -> float:
        steps = mean_cost(
            kept, factor=factor, cooldown=spec.base_recipe().schedule.cooldown_fraction
        )
        trials = seconds * PACE.workers / (PACE.epoch_seconds * steps)
        return float(trials / factor ** (len(kept) - 1))

    found = drop_low_rungs(spec, PACE, rungs, seconds=seconds)
    assert found == rungs[-len(found) :]
    assert len(found) == 1 or finishing(found) >= members
    dropped = [rungs[i:] for i in range(len(rungs) - len(found))]
    assert all(finishing(kept) < members for kept in dropped)


def test_schedules_stay_within_reason() -> None:
    assert planned(60 * 24 * 365).rungs[-1] == LONGEST * SPEC.rungs[-1]
    fast = planned(600, spec=load_spec("digits"), pace=Pace(
        workers=8, epoch_seconds=0.1, student_seconds=0.1, teacher_seconds=0.01,
        predict_seconds=0.01, handover_seconds=0.1, holdout_share=1.0, test_share=1.0,
    ))  # fmt: skip
    assert fast.rungs[-1] == LONGEST * 27
    assert fast.trials is None


@given(minutes=st.floats(9, 5000), epoch=st.floats(0.05, 60), workers=st.integers(1, 16))
def test_seeds_and_students_keep_their_shares(minutes: float, epoch: float, workers: int) -> None:
    pace = Pace(
        workers=workers, epoch_seconds=epoch, student_seconds=epoch / 2,
        teacher_seconds=epoch / 10, predict_seconds=epoch / 10,
        handover_seconds=epoch / 20, holdout_share=0.1, test_share=0.2,
    )  # fmt: skip
    found = planned(minutes, pace=pace)
    over = plan_run(SPEC, pace, now=0, deadline=None).seconds["report"]
    assert sum(found.seconds.values()) == pytest.approx(60 * minutes)
    assert found.seconds["seeds"] <= SEEDS_SHARE * 60 * minutes + 10.1
    assert found.seconds["distill"] <= DISTILL_SHARES[1] * 60 * minutes + 12.1
    assert found.seconds["sweep"] >= 0.3 * (60 * minutes - 5 * over)
    assert found.rungs[-1] ** 2 <= max(1, 60 * minutes * workers / epoch)
    plan_epochs(found.rungs, Recipe(epochs=found.rungs[-1]))


def test_a_budget_too_short_for_anything_says_how_much_is_needed() -> None:
    with pytest.raises(SpecError, match=r"60 s, is too short: .* 120 s here, .*; give 3.5m or"):
        planned(1)
    planned(3.5)


def test_a_search_alone_has_all_the_time() -> None:
    only = planned(60, stages=("sweep",))
    assert only.seconds["sweep"] == pytest.approx(3600)
    assert sum(only.seconds.values()) == pytest.approx(3600)


def test_what_is_left_after_a_selection_is_the_students() -> None:
    left = planned(30, stages=("distill", "ledger", "report"), keep_rungs=True)
    assert left.seconds["sweep"] == left.seconds["seeds"] == left.seconds["select"] == 0
    assert sum(left.seconds.values()) == pytest.approx(1800)
    assert left.end_of("report") == 1000 + 1800
    assert left.rungs == SPEC.rungs


def test_only_what_is_left_needs_time() -> None:
    short = planned(1.5, stages=("ledger", "report"), keep_rungs=True)
    assert short.end_of("report") == 1000 + 90
    with pytest.raises(SpecError, match="one epoch of everything takes 42 s here"):
        planned(1, stages=("distill", "ledger", "report"), keep_rungs=True)


def test_a_resumed_run_keeps_its_rungs() -> None:
    assert planned(60, keep_rungs=True).rungs == SPEC.rungs


def planned_at(side: int, minutes: float | None, *, keep_size: bool) -> tuple[Plan, list[int]]:
    """A plan for images of `side` pixels, and the sides that it asked for in turn."""
    sides = [side]

    def plan() -> Plan:
        pace = replace(PACE, epoch_seconds=26.0 * (sides[-1] / side) ** 2)
        deadline = None if minutes is None else 60 * minutes
        return plan_run(SPEC, pace, now=0.0, deadline=deadline)

    found = plan_or_shrink(plan, sides.append, image_size=side, keep_size=keep_size)
    return found, sides[1:]


@pytest.mark.parametrize(
    ("minutes", "side", "keep_size", "smaller"),
    [
        (60, 64, False, []),  # 16 epochs
        (10, 64, False, [32]),  # two epochs: a third of the side would be enough
        (20, 64, False, [48]),
        (10, 64, True, []),
        (10, 32, False, []),
        (None, 64, False, []),
    ],
)
def test_images_are_made_smaller_when_schedules_would_be_short(
    minutes: float | None, side: int, keep_size: bool, smaller: list[int]
) -> None:
    found, sides = planned_at(side, minutes, keep_size=keep_size)
    assert sides == smaller
    if minutes:
        before = planned(minutes).rungs[-1]
        assert found.rungs[-1] > before if smaller else found.rungs[-1] == before


def test_a_budget_too_short_for_large_images_may_do_for_small_ones() -> None:
    found, sides = planned_at(128, 2.5, keep_size=False)
    assert (sides, found.rungs) == ([32], (1, 4))


@pytest.mark.parametrize(("side", "keep_size"), [(32, False), (64, True)])
def test_a_budget_too_short_for_small_images_is_an_error(side: int, keep_size: bool) -> None:
    with pytest.raises(SpecError, match="is too short"):
        planned_at(side, 1, keep_size=keep_size)


def test_without_a_deadline_the_specification_holds() -> None:
    spec = tiny_spec()
    found = plan_run(spec, PACE, now=0, deadline=None)
    assert (found.rungs, found.trials, found.student_epochs) == ((1, 2), 4, 3)
    assert found.end_of("sweep") is None
    assert found.seconds["distill"] == pytest.approx(found.export_seconds + 3 * (2 * 13 + 2 * 4))


def test_the_plan_becomes_the_specification() -> None:
    found = planned(60)
    spec = found.apply_to(SPEC)
    assert spec.rungs == found.rungs
    assert spec.base_recipe().schedule.epochs == found.rungs[-1]
    assert spec.student_recipe().schedule.epochs == found.student_epochs


@given(top=st.integers(1, 500), rungs=st.sampled_from([(27,), (9, 27), (3, 9, 27), (1, 4)]))
def test_rungs_keep_their_ratios(top: int, rungs: tuple[int, ...]) -> None:
    found = shorten_rungs(SPEC.with_values(rungs=rungs), top)
    assert found[-1] == top
    assert list(found) == sorted(set(found))
    assert len(found) <= len(rungs)
    if top >= 2 * rungs[-1]:
        assert [f / top for f in found] == pytest.approx([r / rungs[-1] for r in rungs], rel=0.1)


def test_mean_steps_are_what_asha_trains() -> None:
    recipe = Recipe(epochs=27)
    steps = [plan.step for plan in plan_epochs((3, 9, 27), recipe) if plan.rung]
    expected = steps[0] + (steps[1] - steps[0]) / 3 + (steps[2] - steps[1]) / 9
    found = mean_cost((3, 9, 27), factor=3, cooldown=recipe.schedule.cooldown_fraction)
    assert found == pytest.approx(expected)
    assert math.isclose(mean_cost((7,), factor=3, cooldown=0.5), 7)


HEAD_FIRST = {"stages": [{"epochs": 4, "train": "head"}, {}]}
HEAD_ONLY = {"stages": [{"train": "head"}]}


@given(minutes=st.floats(12, 5000), head=st.floats(0.01, 1), features=st.floats(0, 2))
def test_schedules_of_stages_fill_the_budget_at_their_own_pace(
    minutes: float, head: float, features: float
) -> None:
    """The longest schedule R whose cost C·e meets R·C·e ≤ T·W and the seeds' share."""
    costs = StageCosts(starts=(0, 4), epochs=(head, 1.0), entries=(features, 0.0))
    spec, pace = SPEC.with_values(recipe=HEAD_FIRST), replace(PACE, costs=costs)
    found = planned(minutes, spec=spec, pace=pace)
    top = found.rungs[-1]
    time = 60 * minutes - sum(over for over in overhead_seconds(spec, pace).values())

    def fits(epochs: int) -> bool:
        whole = PACE.epoch_seconds * cost_at_rungs((epochs,), 0.34, costs)[-1]
        return epochs * whole <= time * 2 and 2 * whole <= SEEDS_SHARE * time

    assert top >= 5
    assert top == 5 or fits(top)
    assert top == LONGEST * 27 or not fits(top + 1)
    assert sum(found.seconds.values()) == pytest.approx(60 * minutes)
    plain = planned(minutes)
    assert top >= plain.rungs[-1] or features > 0.5 * (1 - head)


def test_a_head_alone_costs_its_features_once() -> None:
    """An epoch of 0.1 s after features of 60 s: at the pace of features there would be 2 epochs."""
    costs = StageCosts(starts=(0,), epochs=(1.0,), entries=(600.0,))
    pace = replace(PACE, epoch_seconds=0.1, costs=costs)
    spec = SPEC.with_values(recipe=HEAD_ONLY, rungs=(12,), deliver="single", trials=4)
    forecast = plan_run(spec, pace, now=0, deadline=None, stages=spec.stages)
    each = 60 + 12 * 0.1
    assert forecast.seconds["sweep"] == pytest.approx(20 + 4 * each / 2 + each / 2)
    assert planned(30, spec=spec, pace=pace, stages=spec.stages).rungs == (LONGEST * 12,)
    with pytest.raises(SpecError, match="one epoch of everything takes 60 s here"):
        planned(1.5, spec=spec, pace=pace, stages=spec.stages)


def test_a_plan_tells_what_its_stages_cost() -> None:
    costs = StageCosts(starts=(0, 4), epochs=(0.1, 1.0), entries=(0.5, 0.0))
    pace = replace(PACE, costs=costs)
    found = planned(60, spec=SPEC.with_values(recipe=HEAD_FIRST), pace=pace)
    assert StageCosts.of_event(found.event("sweep")) == costs
