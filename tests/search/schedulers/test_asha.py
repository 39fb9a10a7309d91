"""ASHA: against a slow reading of the rule, in closed form, and as a fold of the journal."""

import math
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler

from search.schedulers.asha import Asha, Decision, TuneAsha

RUNGS = (1, 3, 9)
scores = st.floats(0, 10) | st.sampled_from([math.nan, math.inf, -math.inf])
arrivals = st.lists(st.tuples(st.integers(0, 7), st.sampled_from(RUNGS[:-1]), scores), max_size=40)


def slow_decision(earlier: list[float], value: float, factor: int) -> str:
    """The rule as it is written: count how many of all arrivals are strictly better."""
    if not math.isfinite(value):
        return "stop"
    everybody = [score for score in earlier if math.isfinite(score)] + [value]
    better = sum(score < value for score in everybody)
    return "continue" if better < max(1, math.floor(Fraction(len(everybody), factor))) else "stop"


def event(trial: str, rung: int, value: float | None, decision: Decision) -> dict[str, Any]:
    finite = value if value is not None and math.isfinite(value) else None
    return {
        "event": "decision",
        "trial": trial,
        "rung": rung,
        "value": finite,
        "decision": decision.action,
        "cutoff": decision.cutoff,
    }


@given(values=st.lists(scores, max_size=30), factor=st.integers(2, 5))
def test_decisions_follow_the_rule(values: list[float], factor: int) -> None:
    asha = Asha(RUNGS, factor)
    for number, value in enumerate(values):
        decision = asha.record(f"t{number}", 1, value)
        assert decision.action == slow_decision(values[:number], value, factor)
        if decision.cutoff is not None:
            assert (value <= decision.cutoff) == (decision.action == "continue")


@given(reports=arrivals, cut=st.integers(0, 40))
def test_a_replayed_history_decides_as_the_original(
    reports: list[tuple[int, int, float]], cut: int
) -> None:
    asha = Asha(RUNGS, 3)
    events = []
    for number, rung, value in reports:
        fresh = asha.decided(f"t{number}", rung) is None
        decision = asha.record(f"t{number}", rung, value)
        if fresh:
            events.append(event(f"t{number}", rung, value, decision))
    # From any point on, with every event told twice and every report repeated.
    events = events[:cut]
    resumed = Asha(RUNGS, 3).replay(events + events)
    for number, rung, value in reports:
        first = asha.decided(f"t{number}", rung)
        assert resumed.record(f"t{number}", rung, value) == first


@given(reports=arrivals)
def test_repeated_reports_change_nothing(reports: list[tuple[int, int, float]]) -> None:
    once, often = Asha(RUNGS, 2), Asha(RUNGS, 2)
    for number, rung, value in reports:
        first = once.record(f"t{number}", rung, value)
        assert often.record(f"t{number}", rung, value) == first
        assert often.record(f"t{number}", rung, -1.0) == first


def test_the_first_goes_on_and_then_only_the_best_until_there_are_enough() -> None:
    asha = Asha(RUNGS, 3)
    actions = [
        asha.record(f"t{number}", 1, value).action
        for number, value in enumerate([5.0, 6.0, 4.0, 4.5, 4.0, 4.2, 4.3])
    ]
    # k is 1 up to the fifth arrival, 2 from the sixth on; the fifth ties with the best.
    assert actions == ["continue", "stop", "continue", "stop", "continue", "stop", "stop"]
    assert asha.record("t7", 1, 3.9) == Decision(action="continue", cutoff=4.0)


def test_the_last_rung_ends_a_trial_and_what_is_no_number_stops_it() -> None:
    asha = Asha(RUNGS, 3)
    assert asha.record("a", 9, 0.1) == Decision(action="stop", cutoff=None)
    for value in (math.nan, math.inf, -math.inf, None):
        assert asha.record(f"n{value}", 1, value) == Decision(action="stop", cutoff=None)
    # None of them counts as an arrival.
    assert asha.record("b", 1, 9.0) == Decision(action="continue", cutoff=9.0)


def test_one_in_eta_goes_on() -> None:
    """Closed form: arrival n goes on with probability k/n, if the order is random."""
    expected = sum(Fraction(max(1, n // 3), n) for n in range(1, 25))
    assert round(float(expected), 2) == 8.16
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(400):
        asha = Asha(RUNGS, 3)
        decisions = [asha.record(str(n), 1, value).action for n, value in enumerate(rng.random(24))]
        counts.append(decisions.count("continue"))
    # A false alarm once in 10^9 (6 standard errors).
    assert abs(np.mean(counts) - float(expected)) < 6 * np.std(counts) / math.sqrt(len(counts))


@pytest.mark.parametrize("goes_on", [True, False])
def test_tune_is_told_what_was_decided(goes_on: bool) -> None:
    trial: Any = SimpleNamespace(config={"start": {"trial": "t0007"}})
    asked: list[tuple[str, Any]] = []

    def decide(trial: str, result: Any) -> bool:
        asked.append((trial, result))
        return goes_on

    verdict = TuneAsha(decide).on_trial_result(None, trial, {"rung": 3})
    assert verdict == (TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)
    assert asked == [("t0007", {"rung": 3})]
