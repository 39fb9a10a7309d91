"""Plans fill the time budget, and forecast a run without one."""

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SpecError
from common.stage_costs import StageCosts, cost_at_rungs
from ensemble.ledger.predictions import FILES
from ensemble.robustness.sample import CELLS
from journal.events import STAGES
from search.space.sections import RobustnessSpec
from search.space.spec import SweepSpec
from search.space.sweep_files import load_spec
from search.timetable.fitting import (
    DISTILL_SHARES,
    FEWEST_PASSES,
    LONGEST,
    SEEDS_SHARE,
    SHORTENED,
    drop_low_rungs,
    shorten_rungs,
)
from search.timetable.pace import (
    FEWEST_IMAGES,
    ROBUSTNESS_SHARE,
    Pace,
    mean_cost,
    overhead_seconds,
    robustness_seconds,
    students_seconds,
    with_robustness,
)
from search.timetable.pace import FILES as FILES_PLANNED
from search.timetable.plan import GRACE, Plan, TooShortError, plan_run
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
def test_longer_budgets_give_longer_schedules(minutes: float, rungs: tuple[int, ...]) -> None:
    assert planned(minutes).rungs == rungs


def test_short_budgets_reduce_the_members_before_the_epochs() -> None:
    short, fewer = planned(10), planned(10, min_epochs=6)
    assert (short.rungs, short.seeds) == ((1, 2), 4)
    assert (fewer.rungs, fewer.seeds) == ((1, 4), 2)
    assert fewer.apply_to(SPEC).members == 2
    assert planned(60, min_epochs=6) == planned(60)
    assert planned(10, min_epochs=6, keep_rungs=True).seeds == 4


@given(
    seconds=st.floats(1, 1e6), members=st.integers(1, 8), factor=st.integers(2, 4),
    rungs=st.sampled_from([(9,), (3, 9), (1, 3, 9), (2, 6, 18, 54)]),
)  # fmt: skip
def test_low_rungs_are_dropped_until_there_are_enough_trials(
    seconds: float, members: int, factor: int, rungs: tuple[int, ...]
) -> None:
    spec = SPEC.with_values(members=members, reduction_factor=factor)

    def enough(kept: tuple[int, ...]) -> bool:
        """Return whether K trials finish, and 3K arrive at the rung before or finish."""
        steps = mean_cost(
            kept, factor=factor, cooldown=spec.base_recipe().schedule.cooldown_fraction
        )
        trials = seconds * PACE.workers / (PACE.epoch_seconds * steps)
        finish, pool = (trials / factor ** max(0, len(kept) - below) for below in (1, 2))
        return bool(finish >= members and pool >= 3 * members)

    kept = drop_low_rungs(spec, PACE, rungs, seconds=seconds)
    assert kept == rungs[-len(kept) :]
    assert len(kept) == 1 or enough(kept)
    dropped = [rungs[i:] for i in range(len(rungs) - len(kept))]
    assert not any(enough(longer) for longer in dropped)


def test_schedules_are_at_most_eight_times_as_long_as_specified() -> None:
    assert planned(60 * 24 * 365).rungs[-1] == LONGEST * SPEC.rungs[-1]
    fast = planned(600, spec=load_spec("digits"), pace=Pace(
        workers=8, epoch_seconds=0.1, student_seconds=0.1, teacher_seconds=0.01,
        predict_seconds=0.01, handover_seconds=0.1, holdout_share=1.0, test_share=1.0,
    ))  # fmt: skip
    assert fast.rungs[-1] == LONGEST * 27
    assert fast.trials is None


@given(minutes=st.floats(9, 5000), epoch=st.floats(0.05, 60), workers=st.integers(1, 16))
def test_seeds_and_students_stay_within_their_shares(
    minutes: float, epoch: float, workers: int
) -> None:
    pace = Pace(
        workers=workers, epoch_seconds=epoch, student_seconds=epoch / 2,
        teacher_seconds=epoch / 10, predict_seconds=epoch / 10,
        handover_seconds=epoch / 20, holdout_share=0.1, test_share=0.2,
    )  # fmt: skip
    plan = planned(minutes, pace=pace)
    over = plan_run(SPEC, pace, now=0, deadline=None).seconds["report"]
    assert sum(plan.seconds.values()) == pytest.approx(60 * minutes)
    assert plan.seconds["seeds"] <= SEEDS_SHARE * 60 * minutes + 10.1
    assert plan.seconds["distill"] <= DISTILL_SHARES[1] * 60 * minutes + 12.1
    assert plan.seconds["sweep"] >= 0.3 * (60 * minutes - 5 * over)
    assert plan.rungs[-1] ** 2 <= max(1, 60 * minutes * workers / epoch)
    plan_epochs(plan.rungs, Recipe(epochs=plan.rungs[-1]))


def test_the_error_for_a_short_budget_names_the_shortest_possible_one() -> None:
    with pytest.raises(SpecError, match=r"too short.*60 s.*2\.5m"):
        planned(1)
    planned(2.5)


@given(
    members=st.integers(2, 8), epoch=st.floats(0.1, 100), predict=st.floats(0.1, 100),
    test_share=st.floats(0.05, 1),
)  # fmt: skip
def test_the_shortest_budget_that_the_error_names_is_enough(
    members: int, epoch: float, predict: float, test_share: float
) -> None:
    spec = SPEC.with_values(members=members)
    pace = replace(PACE, epoch_seconds=epoch, predict_seconds=predict, test_share=test_share)
    with pytest.raises(SpecError) as caught:
        planned(0.1, spec=spec, pace=pace)
    minutes = re.search(r"give ([\d.]+)m", str(caught.value))
    assert minutes is not None
    plan = planned(float(minutes[1]), spec=spec, pace=pace)
    assert sum(plan.seconds.values()) <= 60 * float(minutes[1]) + 0.1


@given(minutes=st.floats(2.5, 60), epoch=st.floats(1, 200), workers=st.integers(1, 16))
def test_a_whole_schedule_fits_the_sweep_without_seeds(
    minutes: float, epoch: float, workers: int
) -> None:
    pace = replace(PACE, epoch_seconds=epoch, workers=workers, predict_seconds=600.0)
    try:
        plan = planned(minutes, pace=pace)
    except SpecError:
        return
    if not plan.seconds["seeds"] and plan.rungs[-1] > 1:
        training = plan.seconds["sweep"] - overhead_seconds(SPEC, pace)["sweep"]
        assert plan.rungs[-1] * epoch <= training + 1e-6


def test_seeds_that_are_quickly_evaluated_stay_in_a_short_budget() -> None:
    quick = replace(PACE, epoch_seconds=5.0, student_seconds=2.0, predict_seconds=0.1)
    assert planned(3, pace=quick).seconds["seeds"] > 0


COMPUTE = SPEC.with_values(resource="compute")


@given(minutes=st.floats(10, 2000), epoch=st.floats(1, 200), passes=st.floats(0.05, 2))
def test_seeds_are_left_out_where_three_passes_exceed_their_share(
    minutes: float, epoch: float, passes: float
) -> None:
    pace = replace(PACE, epoch_seconds=epoch, passes=passes, predict_seconds=0.1)
    plan = planned(minutes, spec=COMPUTE, pace=pace)
    fits = FEWEST_PASSES * epoch / passes <= SEEDS_SHARE * 60 * minutes
    assert (plan.seconds["seeds"] > 0) == fits
    assert plan.seeds == SPEC.members
    if fits:
        return
    stages = [stage for stage in STAGES if stage != "seeds"]
    training = 60 * minutes - sum(overhead_seconds(SPEC, pace, stages=stages).values())
    short = plan.rungs[-1] * passes < FEWEST_PASSES
    shortest = students_seconds(SPEC, pace, 1)
    most = max(shortest, DISTILL_SHARES[0 if short else 1] * training)
    assert plan.seconds["distill"] <= plan.export_seconds + most + 1e-6


@given(
    minutes=st.floats(10, 120),
    families=st.lists(st.floats(0.05, 1.2), min_size=1, max_size=4),
    workers=st.integers(1, 4),
)
def test_without_seeds_schedules_shorten_a_little_so_that_every_family_ends_one(
    minutes: float, families: list[float], workers: int
) -> None:
    """Families whose epochs cost other parts of the first one's, which takes ten minutes a pass."""
    costs = {
        str(i): StageCosts(starts=(0,), epochs=(each,), entries=(0.0,))
        for i, each in enumerate([1.0, *families])
    }
    pace = replace(PACE, epoch_seconds=20.0, passes=20 / 600, workers=workers, predict_seconds=0.1)
    alone = planned(minutes, spec=COMPUTE, pace=pace)
    together = planned(minutes, spec=COMPUTE, pace=replace(pace, families=costs))
    assert alone.seconds["seeds"] == together.seconds["seeds"] == 0
    top, whole = together.rungs[-1], alone.rungs[-1]
    sweep = together.seconds["sweep"] - overhead_seconds(SPEC, pace)["sweep"]
    if top < whole:
        assert top >= SHORTENED * whole
        assert simulated_first_trials(costs, top, pace) <= sweep + 1e-6
    else:
        assert top == whole


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
def test_passes_do_not_collapse_where_a_longer_budget_includes_seeds(workers: int) -> None:
    """A pass takes ten minutes. Every schedule from three passes on keeps at least three."""
    reached = False
    for hours in (1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 48):
        wide = replace(
            PACE, epoch_seconds=60.0, passes=0.1, workers=workers, predict_seconds=0.1,
            student_seconds=30.0, teacher_seconds=6.0,
        )  # fmt: skip
        fewest = math.ceil(FEWEST_PASSES / wide.passes)
        plan = planned(60 * hours, spec=COMPUTE, pace=wide, min_epochs=fewest)
        passes = plan.rungs[-1] * wide.passes
        reached = reached or passes >= FEWEST_PASSES
        assert not reached or passes >= FEWEST_PASSES - wide.passes
        assert hours < 48 or plan.seconds["seeds"] > 0
    assert reached


def test_a_resumed_run_does_not_leave_out_seeds_anew() -> None:
    pace = replace(PACE, epoch_seconds=600.0, predict_seconds=0.1)
    assert planned(60, spec=COMPUTE, pace=pace).seconds["seeds"] == 0
    assert planned(60, spec=COMPUTE, pace=pace, keep_rungs=True).seconds["seeds"] > 0


@given(minutes=st.floats(10, 2000), workers=st.integers(1, 8), side=st.floats(10, 900))
def test_a_student_with_random_weights_always_has_time_for_its_shortest_schedule(
    minutes: float, workers: int, side: float
) -> None:
    pace = replace(PACE, epoch_seconds=side, workers=workers, student_seconds=side / 2)
    try:
        plan = planned(minutes, spec=COMPUTE, pace=pace)
    except SpecError:
        return
    needed = students_seconds(SPEC.with_values(members=plan.seeds), pace, 1)
    assert plan.seconds["distill"] - plan.export_seconds >= needed - 1e-6


def simulated_first_trials(costs: dict[str, StageCosts], epochs: int, pace: Pace) -> float:
    """Return when the last family's first trial ends, each started in the worker free first."""
    busy = [0.0] * pace.workers
    for each in costs.values():
        first = busy.index(min(busy))
        busy[first] += epochs * each.epochs[0] * pace.epoch_seconds + pace.handover_seconds
    return max(busy)


def test_a_run_without_seeds_can_be_resumed() -> None:
    slow = replace(PACE, predict_seconds=120.0)
    resumed = planned(4, pace=slow, keep_rungs=True)
    assert (resumed.seeds, resumed.seconds["seeds"]) == (2, 0.0)


def test_seeds_are_evaluated_even_if_they_were_trained_before() -> None:
    later = ("distill", "ledger", "report")
    assert overhead_seconds(SPEC, PACE, stages=later)["ledger"] == pytest.approx(
        overhead_seconds(SPEC, PACE)["ledger"]
    )


def test_a_short_budget_leaves_out_members_and_then_seeds_if_test_takes_long() -> None:
    """Eight nets would predict test in four minutes."""
    slow = replace(PACE, predict_seconds=120.0)
    kept = {
        m: (p.seeds, p.seconds["seeds"] > 0) for m in (4, 10, 60) for p in [planned(m, pace=slow)]
    }
    assert kept == {4: (2, False), 10: (2, True), 60: (4, True)}


def with_images(
    *, seconds: float | None, pace: Pace = PACE, spec: SweepSpec = SPEC, images: int = 2000
) -> Pace:
    """Return the pace of a run with 40,000 training images."""
    return with_robustness(spec, pace, images=images, train=40_000, seconds=seconds)


def test_search_and_ensemble_agree_on_what_is_measured() -> None:
    """Neither package imports the other."""
    assert FEWEST_IMAGES == CELLS
    assert len(FILES) == FILES_PLANNED
    RobustnessSpec(images=CELLS)
    with pytest.raises(SpecError, match="images must be at least"):
        RobustnessSpec(images=CELLS - 1)


def test_corrupted_images_have_their_time_in_the_plan() -> None:
    pace = with_images(seconds=None)
    assert pace.robustness_images == SPEC.robustness.images == 500
    assert with_images(seconds=None, images=400).robustness_images == 400
    before, after = overhead_seconds(SPEC, PACE), overhead_seconds(SPEC, pace)
    gate = after["distill"] - before["distill"]
    assert gate == pytest.approx(robustness_seconds(SPEC, pace))
    assert after["ledger"] - before["ledger"] > gate, "test, and the images of another data set"
    assert {stage for stage in STAGES if after[stage] != before[stage]} == {"distill", "ledger"}
    other = SPEC.with_values(robustness=RobustnessSpec(ood="photographs"))
    assert overhead_seconds(other, pace)["ledger"] > after["ledger"]
    assert sum(planned(60, pace=pace).seconds.values()) == pytest.approx(3600)


@given(seconds=st.floats(10, 20_000), predict=st.floats(1, 5000), deliver=st.booleans())
def test_corrupted_images_take_at_most_their_share_of_a_budget(
    seconds: float, predict: float, deliver: bool
) -> None:
    spec = SPEC.with_values(deliver="student" if deliver else "ensemble")
    slow = replace(PACE, predict_seconds=predict)
    pace = with_images(seconds=seconds, pace=slow, spec=spec)
    before, after = (sum(overhead_seconds(spec, p, stages=spec.stages).values())
                     for p in (slow, pace))  # fmt: skip
    assert pace.robustness_images == 0 or 60 <= pace.robustness_images <= 500
    assert after - before <= ROBUSTNESS_SHARE * seconds + 1e-6
    if 0 < pace.robustness_images < 500:
        more = replace(
            pace,
            robustness_images=pace.robustness_images + 2,
            robustness_share=(pace.robustness_images + 2) / 40_000,
        )
        most = sum(overhead_seconds(spec, more, stages=spec.stages).values())
        assert most - before > ROBUSTNESS_SHARE * seconds, "as many as there is time for"


def test_without_robustness_nothing_is_planned_for_it() -> None:
    off = SPEC.with_values(robustness=RobustnessSpec(enabled=False))
    pace = with_images(seconds=None, spec=off)
    assert overhead_seconds(off, pace) == overhead_seconds(off, PACE)


def test_a_stage_may_run_into_the_next_one_that_trains() -> None:
    def grace(plan: Plan, stage: str) -> float:
        end, cutoff = plan.end_of(stage), plan.cutoff(stage)
        assert end is not None
        assert cutoff is not None
        return cutoff - end

    plan = planned(60)
    assert grace(plan, "sweep") == pytest.approx(GRACE * plan.seconds["seeds"])
    assert grace(plan, "seeds") == pytest.approx(GRACE * plan.seconds["distill"])
    short = planned(60, spec=COMPUTE, pace=replace(PACE, epoch_seconds=600.0))
    assert short.seconds["seeds"] == 0
    assert grace(short, "sweep") == pytest.approx(GRACE * short.seconds["distill"])
    only = planned(60, stages=("sweep", "select", "ledger", "report"))
    assert grace(only, "sweep") == pytest.approx(GRACE * only.seconds["select"])
    assert plan_run(SPEC, PACE, now=0, deadline=None).cutoff("sweep") is None


def test_a_search_alone_takes_all_the_time() -> None:
    only = planned(60, stages=("sweep",))
    assert only.seconds["sweep"] == pytest.approx(3600)
    assert sum(only.seconds.values()) == pytest.approx(3600)


def test_after_a_selection_the_student_takes_the_remaining_time() -> None:
    left = planned(30, stages=("distill", "ledger", "report"), keep_rungs=True)
    assert left.seconds["sweep"] == left.seconds["seeds"] == left.seconds["select"] == 0
    assert sum(left.seconds.values()) == pytest.approx(1800)
    assert left.end_of("report") == 1000 + 1800
    assert left.rungs == SPEC.rungs


def test_only_the_remaining_stages_need_time() -> None:
    short = planned(1.5, stages=("ledger", "report"), keep_rungs=True)
    assert short.end_of("report") == 1000 + 90
    with pytest.raises(SpecError, match=r"too short.*42 s"):
        planned(1, stages=("distill", "ledger", "report"), keep_rungs=True)


def test_a_resumed_run_keeps_its_rungs() -> None:
    assert planned(60, keep_rungs=True).rungs == SPEC.rungs


def planned_at(side: int, minutes: float | None, *, keep_size: bool) -> tuple[Plan, list[int]]:
    """Plan with images of `side` pixels; return the plan and the smaller sides that were tried."""
    sides = [side]

    def plan_at_present_side() -> Plan:
        pace = replace(PACE, epoch_seconds=26.0 * (sides[-1] / side) ** 2)
        deadline = None if minutes is None else 60 * minutes
        return plan_run(SPEC, pace, now=0.0, deadline=deadline)

    plan = plan_or_shrink(plan_at_present_side, sides.append, image_size=side, keep_size=keep_size)
    return plan, sides[1:]


def test_the_advice_on_a_budget_counts_the_time_already_spent() -> None:
    """51 s of 90 s were spent when the plan was made: 39 s are left."""

    def plan() -> Plan:
        return plan_run(SPEC, PACE, now=0.0, deadline=39.0)

    def advised(spent: float) -> float:
        with pytest.raises(TooShortError) as caught:
            plan_or_shrink(plan, print, image_size=32, keep_size=True, spent=lambda: spent)
        return 60 * float(str(caught.value).partition("give ")[2].partition("m")[0])

    needed = advised(0.0)
    assert plan_run(SPEC, PACE, now=0.0, deadline=needed)
    assert needed + 51 <= advised(51.0) < needed + 51 + 30


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
    plan, sides = planned_at(side, minutes, keep_size=keep_size)
    assert sides == smaller
    if minutes:
        before = planned(minutes).rungs[-1]
        assert plan.rungs[-1] > before if smaller else plan.rungs[-1] == before


def test_a_budget_too_short_for_large_images_may_suffice_for_small_ones() -> None:
    plan, sides = planned_at(128, 2.2, keep_size=False)
    assert (sides, plan.rungs) == ([32], (6,))


@pytest.mark.parametrize(("side", "keep_size"), [(32, False), (64, True)])
def test_a_budget_too_short_for_small_images_is_an_error(side: int, keep_size: bool) -> None:
    with pytest.raises(SpecError, match="is too short"):
        planned_at(side, 1, keep_size=keep_size)


def test_without_a_deadline_the_specification_is_kept() -> None:
    spec = tiny_spec()
    plan = plan_run(spec, PACE, now=0, deadline=None)
    assert (plan.rungs, plan.trials, plan.student_epochs) == ((1, 2), 4, 3)
    assert plan.end_of("sweep") is None
    assert plan.seconds["distill"] == pytest.approx(plan.export_seconds + 3 * (2 * 13 + 2 * 4))


def test_a_plan_is_applied_to_the_specification() -> None:
    plan = planned(60)
    spec = plan.apply_to(SPEC)
    assert spec.rungs == plan.rungs
    assert spec.base_recipe().schedule.epochs == plan.rungs[-1]
    assert spec.student_recipe().schedule.epochs == plan.student_epochs


@given(top=st.integers(1, 500), rungs=st.sampled_from([(27,), (9, 27), (3, 9, 27), (1, 4)]))
def test_shortened_rungs_keep_their_ratios(top: int, rungs: tuple[int, ...]) -> None:
    shortened = shorten_rungs(SPEC.with_values(rungs=rungs), top)
    assert shortened[-1] == top
    assert list(shortened) == sorted(set(shortened))
    assert len(shortened) <= len(rungs)
    if top >= 2 * rungs[-1]:
        assert [f / top for f in shortened] == pytest.approx(
            [r / rungs[-1] for r in rungs], rel=0.1
        )


def test_the_mean_cost_of_a_trial_is_what_asha_trains() -> None:
    recipe = Recipe(epochs=27)
    steps = [epoch.step for epoch in plan_epochs((3, 9, 27), recipe) if epoch.rung]
    expected = steps[0] + (steps[1] - steps[0]) / 3 + (steps[2] - steps[1]) / 9
    mean = mean_cost((3, 9, 27), factor=3, cooldown=recipe.schedule.cooldown_fraction)
    assert mean == pytest.approx(expected)
    assert math.isclose(mean_cost((7,), factor=3, cooldown=0.5), 7)


HEAD_FIRST = {"stages": [{"epochs": 4, "train": "head"}, {}]}
HEAD_ONLY = {"stages": [{"train": "head"}]}


@given(minutes=st.floats(12, 5000), head=st.floats(0.01, 1), features=st.floats(0, 2))
def test_schedules_with_stages_fill_the_budget(
    minutes: float, head: float, features: float
) -> None:
    """The longest schedule R whose cost C·e meets R·(C·e − F) ≤ (T − F)·W and the seeds' share.

    F is the time of the features, which each worker computes once.
    """
    costs = StageCosts(starts=(0, 4), epochs=(head, 1.0), entries=(features, 0.0))
    spec, pace = SPEC.with_values(recipe=HEAD_FIRST), replace(PACE, costs=costs)
    plan = planned(minutes, spec=spec, pace=pace)
    top = plan.rungs[-1]
    time = 60 * minutes - sum(over for over in overhead_seconds(spec, pace).values())

    def fits(epochs: int) -> bool:
        whole = PACE.epoch_seconds * cost_at_rungs((epochs,), 0.34, costs)[-1]
        once = PACE.epoch_seconds * features
        return epochs * (whole - once) <= (time - once) * 2 and 2 * whole <= SEEDS_SHARE * time

    assert top >= 5
    assert top == 5 or fits(top)
    assert top == LONGEST * 27 or not fits(top + 1)
    assert sum(plan.seconds.values()) == pytest.approx(60 * minutes)
    plain = planned(minutes)
    assert top >= plain.rungs[-1] or features > 0.5 * (1 - head)


def test_training_only_the_head_pays_for_the_features_once() -> None:
    """Features take 60 s, then each epoch 0.1 s."""
    costs = StageCosts(starts=(0,), epochs=(1.0,), entries=(600.0,))
    pace = replace(PACE, epoch_seconds=0.1, costs=costs)
    spec = SPEC.with_values(recipe=HEAD_ONLY, rungs=(12,), deliver="single", trials=4)
    forecast = plan_run(spec, pace, now=0, deadline=None, stages=spec.stages)
    each = 60 + 12 * 0.1
    assert forecast.seconds["sweep"] == pytest.approx(20 + 4 * each / 2 + each / 2)
    assert planned(30, spec=spec, pace=pace, stages=spec.stages).rungs == (LONGEST * 12,)
    with pytest.raises(SpecError, match=r"too short.*60 s"):
        planned(1.5, spec=spec, pace=pace, stages=spec.stages)


def test_the_event_of_a_plan_holds_the_costs_of_its_stages() -> None:
    costs = StageCosts(starts=(0, 4), epochs=(0.1, 1.0), entries=(0.5, 0.0))
    pace = replace(PACE, costs=costs)
    plan = planned(60, spec=SPEC.with_values(recipe=HEAD_FIRST), pace=pace)
    assert plan.event("sweep").stage_costs == costs


def test_an_ensemble_of_fewer_members_leaves_their_time_to_the_student() -> None:
    plan = planned(60)
    assert plan.members == SPEC.members == 4
    smaller = plan.with_members(2)
    predicted = 2 * PACE.predict_seconds * PACE.test_share
    assert plan.seconds["ledger"] - smaller.seconds["ledger"] == pytest.approx(predicted)
    assert smaller.end_of("distill") == pytest.approx(plan.end_of("distill") + predicted)  # type: ignore[operator]
    assert smaller.with_members(4).seconds == pytest.approx(plan.seconds)


def test_the_time_of_members_is_what_a_plan_for_fewer_of_them_would_save() -> None:
    def overhead(members: int) -> dict[str, float]:
        return overhead_seconds(SPEC.with_values(members=members), pace, stages=stages)

    pace = replace(PACE, robustness_images=500, robustness_share=0.02)
    stages = tuple(stage for stage in STAGES if stage != "seeds")
    plan = planned(60, pace=pace, stages=stages)
    whole, fewer = overhead(4), overhead(2)
    after = plan.with_members(2)
    for stage in ("distill", "ledger"):
        saved = plan.seconds[stage] - after.seconds[stage]
        assert saved == pytest.approx(whole[stage] - fewer[stage])
    assert plan.export_seconds - after.export_seconds == pytest.approx(
        whole["distill"] - fewer["distill"]
    )
