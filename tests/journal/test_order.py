"""The order of events: an event out of order or repeated is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal.events import (
    CheckpointSaved,
    Event,
    RungDecided,
    RunResumed,
    StageReported,
    SweepEnded,
    TestRead,
    TrialRetried,
)
from journal.order import OutOfOrderError
from journal.state import RunState
from tests.events import epoch, run_started, state_of, trial_ended, trial_started
from tests.synthetic_sweep import SPEC, synthetic_chain, synthetic_sweep

SWEEP: list[Event] = list(
    synthetic_sweep(seed=1, spec={**SPEC, "trials": 4}, fail=(2,), retry=(0,))
)
EVENTS: list[Event] = [*SWEEP, *synthetic_chain(start=SWEEP[-1].time)]
NOT_REPEATABLE = [e for e in EVENTS if e.event not in ("result", "registered")
                  and getattr(e, "status", "") != "progress"]  # fmt: skip


def stage(name: str, status: Any) -> StageReported:
    return StageReported(stage=name, status=status, time=0)


def decision(trial: str, rung: int) -> RungDecided:
    return RungDecided(trial=trial, rung=rung, value=0.5, decision="continue", cutoff=0.5,
                       reason="promoted", time=0)  # fmt: skip


def checkpoint(trial: str, step: int, path: str = "s/t/c") -> CheckpointSaved:
    return CheckpointSaved(trial=trial, step=step, path=path, time=0)


def resumed() -> RunResumed:
    return RunResumed(run="r", time=0)


T = trial_started("t0000")
SCORED = [T, epoch("t0000", 1, rung=1)]
OVER = SweepEnded(kind="search", reason="finished", time=0)


@pytest.mark.parametrize(
    ("before", "event", "message"),
    [
        ([], run_started(), "has started already"),
        ([], epoch("t0000", 1), "t0000 has not started"),
        ([], trial_started("t0000", attempt=2), "attempt 2 of t0000, not 1"),
        ([T], T, "attempt 1 of t0000, not 2"),
        ([T], epoch("t0000", 2), "step 2 of t0000 after step 0"),
        ([T, epoch("t0000", 1)], epoch("t0000", 1), "step 1 of t0000 after step 1"),
        (SCORED, epoch("t0000", 2, rung=1), "scored at rung 1 already"),
        ([T], decision("t0000", 1), "was not scored at rung 1"),
        ([*SCORED, decision("t0000", 1)], decision("t0000", 1), "decision at rung 1 already"),
        ([T], checkpoint("t0000", 1), "at step 1 after step 0"),
        ([*SCORED, checkpoint("t0000", 1)], checkpoint("t0000", 1), "saved already"),
        ([T], TrialRetried(trial="t0000", attempt=3, reason="", time=0), "attempt 3"),
        ([T], trial_ended("t0000", kind="seed"), "is a search trial"),
        ([T, trial_ended("t0000")], trial_ended("t0000"), "t0000 has ended"),
        ([T, trial_ended("t0000")], epoch("t0000", 1), "t0000 has ended"),
        ([T, trial_ended("t0000")], trial_started("t0000", attempt=2), "t0000 has ended"),
        ([OVER], OVER, "search trials have ended already"),
        ([], stage("sweep", "finished"), "sweep is not under way"),
        ([], stage("sweep", "progress"), "sweep is not under way"),
        ([stage("sweep", "started")], stage("sweep", "started"), "under way already"),
        ([stage("sweep", "started")], stage("sweep", "skipped"), "under way already"),
        ([stage("sweep", "started"), resumed()], stage("sweep", "finished"), "not under way"),
        ([], stage("lunch", "started"), "no stage 'lunch'"),
    ],
)  # fmt: skip
def test_an_event_out_of_order_is_refused(before: list[Event], event: Event, message: str) -> None:
    state = state_of(*before)
    with pytest.raises(OutOfOrderError, match=message):
        state.apply(event)
    assert state.count == 1 + len(before)


@pytest.mark.parametrize(
    ("before", "event"),
    [
        ([resumed()], stage("data", "started")),
        ([stage("sweep", "started"), resumed()], stage("sweep", "started")),
        ([stage("sweep", "started"), stage("sweep", "finished")], stage("sweep", "skipped")),
        ([OVER, resumed()], OVER),
        ([OVER, T], OVER),
        ([T, resumed()], trial_started("t0000", attempt=2)),
        ([*SCORED, checkpoint("t0000", 1)], checkpoint("t0000", 1, "s2/t/c")),
    ],
)
def test_an_event_that_may_repeat_is_accepted(before: list[Event], event: Event) -> None:
    state_of(*before, event)


@pytest.mark.parametrize("event", [resumed(), TestRead(time=0), stage("sweep", "started"), OVER, T])
def test_only_the_preparation_stages_may_come_before_the_start(event: Event) -> None:
    state = RunState()
    with pytest.raises(OutOfOrderError, match="the run has not started"):
        state.apply(event)
    state.apply(stage("data", "started"))
    state.apply(stage("data", "finished"))
    state.apply(run_started())
    assert state.started is not None


@pytest.mark.parametrize("event", NOT_REPEATABLE, ids=lambda event: event.event)
def test_every_event_of_a_sweep_is_refused_the_second_time(event: Event) -> None:
    state = RunState()
    for earlier in EVENTS[: EVENTS.index(event) + 1]:
        state.apply(earlier)
    with pytest.raises(OutOfOrderError, match=event.event):
        state.apply(event)


@settings(max_examples=30)
@given(st.data())
def test_the_accepted_events_of_any_sequence_fold_again_to_the_same_state(
    data: st.DataObject,
) -> None:
    """Events are drawn from a sweep in any order, with repeats: refused ones change nothing."""
    indices = data.draw(st.lists(st.integers(0, len(EVENTS) - 1), max_size=60))
    state, accepted = RunState(), []
    for event in [EVENTS[0], *(EVENTS[index] for index in sorted(indices[:40]) + indices[40:])]:
        before = snapshot(state)
        try:
            state.apply(event)
            accepted.append(event)
        except OutOfOrderError:
            assert snapshot(state) == before
    assert snapshot(RunState.from_events(accepted)) == snapshot(state)


def snapshot(state: RunState) -> Any:
    """Return everything that a state holds, as text."""
    parts = {name: repr(value) for name, value in vars(state).items() if name != "trials"}
    return parts | {f"trials.{name}": repr(value) for name, value in vars(state.trials).items()}
