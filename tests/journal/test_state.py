"""The state of a run, compared with slow oracles that read all its events."""

import statistics
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.stage_costs import StageCosts
from journal.cohort import RungCount
from journal.events import (
    EpochEnded,
    Event,
    PlanMade,
    RungDecided,
    RunResumed,
    StageReported,
    SweepEnded,
    TrialEnded,
)
from journal.journal import read_events
from journal.paces import RECENT, weighted_median
from journal.state import RunState
from tests.docs import ROOT
from tests.events import epoch, of_type, state_of, trial_ended, trial_started
from tests.synthetic_sweep import SPEC, synthetic_sweep
from trainables.recipe import Recipe


def sweep(**options: Any) -> list[Event]:
    return list(synthetic_sweep(**options))


def resumed(time: float) -> RunResumed:
    return RunResumed(run="r", time=time)


def test_counts_agree_with_a_slow_oracle() -> None:
    events = sweep(seed=3, fail=(5,), retry=(1,))
    state = RunState.from_events(events)
    for rung in SPEC["rungs"]:
        arrived = {e.trial for e in of_type(events, EpochEnded) if e.rung == rung}
        decided = [e for e in of_type(events, RungDecided) if e.rung == rung]
        promoted = sum(e.decision == "continue" for e in decided)
        stopped = len(decided) - promoted
        assert state.rung_counts()[rung] == RungCount(len(arrived), promoted, stopped)
    ends = {e.trial: e.status for e in of_type(events, TrialEnded)}
    assert {trial.name: trial.status for trial in state.trials.values()} == ends
    for status in ("completed", "pruned", "failed"):
        assert state.trials.cohorts["search"].ended.get(status, 0) == list(ends.values()).count(
            status
        )
    scores = [(-e.rung, e.val_nll, e.trial) for e in of_type(events, EpochEnded) if e.rung]
    assert state.trials.best is not None
    assert state.trials.best.name == min(scores)[2]
    assert state.count == len(events)
    assert [trial.reason for trial in state.trials.with_status("failed")] == [
        "DivergedError: the loss is not finite"
    ]


def test_a_higher_rung_ranks_before_a_lower_one_and_no_score_ranks_last() -> None:
    starts = [trial_started(name) for name in ("t0000", "t0001", "t0002")]
    scores: list[Event] = [
        epoch("t0000", 1, val_nll=0.2, rung=1),
        epoch("t0001", 1, val_nll=0.9, rung=1),
        epoch("t0001", 2, val_nll=0.7, rung=3),
        epoch("t0002", 1, val_nll=None, rung=3),
        trial_started("s00", kind="seed"),
        epoch("s00", 1, val_nll=0.1, rung=9),
    ]
    state = state_of(*starts, *scores)
    assert [trial.name for trial in state.trials.ranked()] == ["t0001", "t0002", "t0000"]
    assert state.trials.best is not None
    assert state.trials.best.name == "t0001"
    assert [trial.name for trial in state.trials.ranked(kind="seed")] == ["s00"]


def test_an_interrupted_trial_is_pending_until_it_starts_again() -> None:
    state = state_of(trial_started("t0000", 1), epoch("t0000", 1, 11))
    assert state.trials.status(state.trials["t0000"]) == "running"
    state.apply(SweepEnded(kind="search", reason="interrupted", time=12))
    assert state.trials.status(state.trials["t0000"]) == "pending"
    assert (state.interrupted, state.active) == (True, False)
    state.apply(resumed(1000))
    assert (state.interrupted, state.active) == (False, True)
    assert state.trials.status(state.trials["t0000"]) == "pending"
    state.apply(trial_started("t0000", 1001, attempt=2))
    assert state.trials.status(state.trials["t0000"]) == "running"
    assert state.trials["t0000"].attempts == 2
    # Neither the pause nor the start of a worker is work or the pace of a step.
    assert state.elapsed(1003) == pytest.approx(12 + 3)
    state.apply(epoch("t0000", 2, 1061))
    assert state.trials.cohorts["search"].seconds_per_step == pytest.approx(3.0)
    state.apply(epoch("t0000", 3, 1070))
    assert state.trials.cohorts["search"].seconds_per_step == pytest.approx((3 + 3 + 9) / 3)


def test_trials_of_a_killed_run_are_pending_after_the_resume() -> None:
    state = state_of(
        trial_started("t0000", 1),
        epoch("t0000", 1, 2),
        trial_started("t0001", 1),
        resumed(50),
        trial_started("t0001", 51, attempt=2),
    )
    assert {trial.name: state.trials.status(trial) for trial in state.trials.values()} == {
        "t0000": "pending",
        "t0001": "running",
    }


def test_the_wall_time_of_a_stage_excludes_pauses() -> None:
    def stage(status: Any, time: float, fraction: float = 0.3) -> StageReported:
        return StageReported(
            stage="distill", status=status, fraction=fraction, detail="epoch 3 of 9", time=time
        )

    state = state_of(
        stage("started", 10), stage("progress", 25), resumed(100), stage("started", 101),
        stage("progress", 107),
    )  # fmt: skip
    distill = state.stages["distill"]
    assert state.stage == "distill"
    assert (distill.fraction, distill.detail) == (0.3, "epoch 3 of 9")
    assert distill.seconds(108) == pytest.approx(15 + 7)
    state.apply(stage("finished", 110, 1.0))
    assert distill.seconds(9999) == pytest.approx(24)
    assert (distill.last_seconds, distill.times_finished) == (24, 1)
    state.apply(stage("started", 200, 0.0))
    state.apply(stage("finished", 204, 1.0))
    assert (distill.last_seconds, distill.times_finished) == (4, 2)
    assert distill.seconds(9999) == 4
    assert state.stages["report"].seconds(9999) is None


def test_the_pace_of_a_cheap_family_says_little_about_an_expensive_one() -> None:
    """Epochs of a head take four times as long as forecast, but are a fiftieth of the others'."""
    head, whole = ({**Recipe().to_mapping(), "family": name} for name in ("head", "whole"))
    state = state_of(
        trial_started("t0000", recipe=whole), epoch("t0000", 1, seconds=50.0),
        trial_started("t0001", recipe=head), *(epoch("t0001", n, seconds=4.0) for n in range(1, 9)),
        trial_started("t0002", recipe=head), *(epoch("t0002", n, seconds=4.0) for n in range(1, 9)),
    )  # fmt: skip
    state.trials.family_costs = {
        "head": StageCosts(starts=(0,), epochs=(0.02,), entries=(0.0,)),
        "whole": StageCosts(starts=(0,), epochs=(1.0,), entries=(0.0,)),
    }
    assert state.trials.pace() == 50.0
    assert state.trials.pace(head) == pytest.approx(200.0)


def test_a_cheap_family_alone_gives_no_pace_for_the_others() -> None:
    head = {**Recipe().to_mapping(), "family": "head"}
    state = state_of(trial_started("t0000", recipe=head), epoch("t0000", 1, seconds=4.0))
    state.trials.family_costs = {
        "whole": StageCosts(starts=(0,), epochs=(1.0,), entries=(0.0,)),
        "head": StageCosts(starts=(0,), epochs=(0.02,), entries=(0.0,)),
    }
    assert state.trials.pace() is None
    assert state.trials.pace(head) == pytest.approx(200.0)


def test_a_plan_without_families_keeps_their_costs() -> None:
    first = {"scratch": StageCosts(starts=(0,), epochs=(0.5,), entries=(0.0,))}
    plans = [PlanMade(at="sweep", seconds={}, family_costs=each, time=1.0) for each in (first, {})]
    state = state_of(*plans)
    assert state.trials.family_costs == first


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 9)), min_size=1, max_size=8))
def test_the_weighted_median_is_the_median_of_values_repeated_as_often_as_they_weigh(
    weighted: list[tuple[int, int]],
) -> None:
    repeated = [value for value, weight in weighted for _ in range(weight)]
    assert weighted_median(weighted) == statistics.median(repeated)


def test_the_pace_is_the_median_of_the_trials_with_the_same_recipe() -> None:
    small, large = Recipe(width=8).to_mapping(), Recipe(width=64).to_mapping()
    assert RunState().trials.pace() is None
    state = state_of(
        trial_started("t0000", recipe=small), epoch("t0000", 1, seconds=1.0),
        trial_started("t0001", recipe=small), epoch("t0001", 1, seconds=3.0),
        trial_started("t0002", recipe=large), epoch("t0002", 1, seconds=10.0),
    )  # fmt: skip
    assert state.trials.pace() == 3.0
    assert state.trials.pace(large) == 10.0
    assert state.trials.pace(small) == 2.0
    assert state.trials.pace(Recipe(width=9).to_mapping()) == 3.0


def test_a_resume_forgets_the_plan_but_not_the_cost_of_epochs() -> None:
    costs = StageCosts(starts=(0, 2), epochs=(0.1, 1.0), entries=(0.3, 0.0))
    state = state_of(PlanMade(at="sweep", seconds={}, stage_costs=costs, deadline=9.0, time=1))
    assert state.deadline == 9.0
    state.apply(resumed(5))
    assert state.plan is None
    assert len(state.plans) == 1
    assert state.trials.costs == costs


def test_an_abandoned_run_is_interrupted_until_it_has_another_event() -> None:
    state = state_of(trial_started("t0000", 1))
    state.abandon()
    assert (state.interrupted, state.active, state.trials.running) == (True, False, set())
    state.apply(trial_ended("t0000", time=3))
    assert not state.interrupted


def test_a_long_journal_is_folded_at_constant_cost() -> None:
    """At a cost linear in the trials, an event among 640 would cost 16 times one among 40."""

    def lines_per_event(trials: int) -> float:
        events = sweep(spec={**SPEC, "trials": trials}, concurrent=8)
        return lines_run(lambda: RunState.from_events(events)) / len(events)

    assert lines_per_event(640) < 1.5 * lines_per_event(40)


def test_questions_about_a_long_run_are_answered_at_constant_cost() -> None:
    """They are asked for every trial of a sweep, so a scan would make a sweep quadratic."""

    def lines(trials: int) -> int:
        ended = [
            event
            for number in range(trials)
            for event in (
                trial_started(f"t{number:04d}", number=number),
                epoch(f"t{number:04d}", 1, rung=1, val_nll=(number * 7919) % trials / trials),
                trial_ended(f"t{number:04d}", "pruned"),
            )
        ]
        state = state_of(*ended, trial_started("t9999", number=9999))
        recipe = {**Recipe().to_mapping(), "width": 99}
        state.trials.pace(recipe)

        def ask() -> None:
            assert [trial.name for trial in state.trials.unfinished("search")] == ["t9999"]
            assert len(state.trials.with_status("running", "pending")) == 1
            assert len(state.trials.ranked(most=5)) == 5
            assert state.trials.cohorts["search"].ended == {"pruned": trials}
            assert state.trials.features_known("search", recipe)
            assert state.trials.pace(recipe) == 3.0

        return lines_run(ask)

    assert lines(4 * RECENT) < 1.1 * lines(2 * RECENT)


@given(st.integers(0, 99), st.data())
def test_every_order_of_the_trials_agrees_with_a_scan(seed: int, data: st.DataObject) -> None:
    events = sweep(seed=seed, spec={**SPEC, "trials": 12}, concurrent=3, fail=(2,), retry=(4,))
    cut = data.draw(st.integers(1, len(events)))
    state = RunState.from_events(events[:cut])
    if data.draw(st.booleans()):
        state.apply(resumed(events[cut - 1].time))
    trials, every = state.trials, list(state.trials.values())
    by_name = sorted(every, key=lambda trial: trial.name)
    assert trials.of_kind("search") == sorted(every, key=lambda trial: trial.number)
    assert trials.of_kind("seed") == []
    assert trials.unfinished("search") == [t for t in trials.of_kind("search") if t.end is None]
    statuses: tuple[Any, ...] = ("pending", "running", "completed", "pruned", "failed")
    for chosen in (*((each,) for each in statuses), statuses[1:4]):
        expected = [trial for trial in by_name if trials.status(trial) in chosen]
        assert trials.with_status(*chosen) == expected
        assert trials.with_status(*chosen, kind="seed") == []
    scored = sorted((trial for trial in every if trial.scores), key=lambda trial: trial.rank)
    assert trials.ranked() == scored
    assert trials.ranked(most=3) == scored[:3]
    assert trials.best == (scored[0] if scored else None)
    assert trials.restarts == sum(len(trial.retries) for trial in every)
    for recipe in [trial.recipe for trial in every] + [Recipe(width=99).to_mapping()]:
        paces = [(dict(t.recipe), t.timed(trials.costs_of(t.recipe))) for t in every]
        known = [(each, seconds / cost, cost) for each, (seconds, cost) in paces if cost]
        same = [(pace, cost) for each, pace, cost in known if each == recipe]
        chosen_paces = same or [(pace, cost) for _, pace, cost in known]
        assert trials.pace(recipe) == (weighted_median(chosen_paces) if chosen_paces else None)
        assert trials.features_known("search", recipe) == any(
            trial.status in ("completed", "pruned")
            and not (state.resumes and trial.last_seen <= state.resumes[-1].time)
            for trial in every
        )


def lines_run(work: Callable[[], object]) -> int:
    """Count the lines of Python that `work` runs; every turn of a loop counts."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def test_a_journal_of_version_0_1_0_folds_to_the_run_it_describes() -> None:
    """The golden file is the journal of `quorum demo` at commit 613c6df, for four of its trials."""
    state = RunState.from_events(read_events(ROOT / "tests" / "golden" / "journal_0.1.0.jsonl"))
    assert {name: trial.status for name, trial in state.trials.items()} == {
        "t0000": "completed", "t0001": "completed", "t0002": "pruned", "s00": "completed",
    }  # fmt: skip
    assert state.test_reads == 1
    assert state.registered is not None
    assert not state.active
    decisions = [
        decision.reason
        for trial in state.trials.of_kind("search")
        for decision in trial.decisions.values()
    ]
    assert decisions.count("promoted") == 4
    assert decisions.count("above_cutoff") == 1
