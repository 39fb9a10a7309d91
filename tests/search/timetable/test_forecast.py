"""Forecasts of a run's stages: in closed form, and their errors over simulated sweeps."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.stage_costs import StageCosts
from journal.events import Event, PlanMade, StageReported, SweepEnded
from journal.state import RunState
from search.timetable.forecast import trials_seconds_left
from tests.events import epoch, run_started, trial_ended, trial_started
from tests.synthetic_sweep import SPEC, synthetic_sweep


def sweep(**options: Any) -> list[Event]:
    return list(synthetic_sweep(**options))


def state_of(*events: Event, **spec: Any) -> RunState:
    return RunState.from_events([run_started(spec={**SPEC, **spec}), *events])


def test_nothing_is_forecast_before_enough_steps() -> None:
    assert trials_seconds_left(RunState(), 0.0) is None
    assert (
        trials_seconds_left(state_of(trial_started("t0000", 1), epoch("t0000", 1, 2)), 2.0) is None
    )


def test_one_trial_with_a_steady_pace_is_forecast_exactly() -> None:
    """One rung, one trial, 3 seconds per step: nothing is random."""
    state = state_of(trial_started("t0000"), trials=1, rungs=[9])
    for step in range(1, 6):
        state.apply(epoch("t0000", step, 40 + 3.0 * step))
    assert trials_seconds_left(state, 55.0) == pytest.approx(12.0)
    assert trials_seconds_left(state, 56.0) == pytest.approx(11.0)
    assert trials_seconds_left(state, 99.0) == pytest.approx(
        9.0
    )  # a late report is not counted twice


def test_cheap_stages_are_forecast_at_their_own_pace() -> None:
    """Two epochs of the head at 1 s after features of 3 s, then seven at 10 s."""
    costs = StageCosts(starts=(0, 2), epochs=(0.1, 1.0), entries=(0.3, 0.0))
    state = state_of(
        PlanMade(at="sweep", seconds={}, stage_costs=costs, time=0),
        trial_started("t0000"),
        epoch("t0000", 1, 4.0),
        epoch("t0000", 2, 5.0),
        trials=1,
        rungs=[9],
    )
    # The first epoch counts with the 3 s that it reported.
    assert state.trials.cohorts["search"].seconds_per_step == pytest.approx(4 / 0.5)
    for step in range(3, 6):
        state.apply(epoch("t0000", step, 5.0 + 10 * (step - 2)))
    assert state.trials.cohorts["search"].seconds_per_step == pytest.approx(34 / 3.5)
    assert trials_seconds_left(state, 35.0) == pytest.approx(4 * 34 / 3.5)
    assert trials_seconds_left(state, 99.0) == pytest.approx(
        3 * 34 / 3.5
    )  # at most the step under way


def test_seeds_are_forecast_by_their_own_count_and_schedule() -> None:
    state = state_of(
        trial_started("t0000"),
        *(epoch("t0000", step, 1.0 * step) for step in range(1, 10)),
        trial_ended("t0000", time=9),
        SweepEnded(kind="search", reason="finished", time=9),
        trials=1,
        members=3,
    )
    assert trials_seconds_left(state, 9.0) == 0.0
    state.apply(StageReported(stage="seeds", status="started", time=9))
    assert trials_seconds_left(state, 9.0) is None
    state.apply(trial_started("s00", 9, kind="seed"))
    for step in range(1, 8):
        state.apply(epoch("s00", step, 9 + 3.0 * step))
    assert trials_seconds_left(state, 30.0) == pytest.approx(3.0 * (20 + 2 * 27))


@pytest.mark.parametrize(("trials", "concurrent"), [(24, 2), (60, 4)])
def test_forecasts_are_right_on_average(trials: int, concurrent: int) -> None:
    """Thirty fixed simulated sweeps; errors are shares of the sweep's length.

    Over 200 sweeps, after half the time: mean 0.04 and −0.06, 90th percentile of the absolute
    error 0.31 and 0.23.
    """
    errors = []
    for seed in range(30):
        events = sweep(seed=seed, spec={**SPEC, "trials": trials}, concurrent=concurrent)
        began, end = events[0].time, events[-1].time
        half = (began + end) / 2
        state = RunState.from_events(event for event in events if event.time <= half)
        left = trials_seconds_left(state, half)
        assert left is not None
        errors.append((left - (end - half)) / (end - began))
    assert abs(np.mean(errors)) < 0.1
    assert np.quantile(np.abs(errors), 0.9) < 0.4


@settings(max_examples=15)
@given(st.integers(0, 1000), st.floats(0.0, 1.0))
def test_a_forecast_is_never_negative_and_is_zero_at_the_end(seed: int, share: float) -> None:
    events = sweep(seed=seed, spec={**SPEC, "trials": 8}, fail=(3,))
    state = RunState.from_events(events[: int(share * len(events))])
    left = trials_seconds_left(state, state.last_time + 5)
    assert left is None or left >= 0.0
    assert trials_seconds_left(RunState.from_events(events), events[-1].time) == 0.0


def test_importing_forecasts_loads_no_heavy_library() -> None:
    heavy = ("torch", "ray", "mlflow", "optuna", "pandas", "numpy")
    code = (
        f"import sys, search.timetable.forecast\nprint([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
