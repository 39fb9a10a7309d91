"""ASHA compared with a slow oracle and a closed form, and rebuilt from a run's state."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.events import RungDecided
from journal.state import RunState
from quorum.testing.schedulers import SchedulerContract
from search.schedulers.asha import Asha
from search.schedulers.scheduler import Decision
from tests.events import epoch, state_of, trial_started

RUNGS = (1, 3, 9)
scores = st.floats(0, 10) | st.sampled_from([math.nan, math.inf, -math.inf])
arrivals = st.lists(st.tuples(st.sampled_from(RUNGS[:-1]), scores), max_size=40)


class TestContractOfAsha(SchedulerContract):
    @pytest.fixture(autouse=True, params=[2, 3, 4])
    def factor(self, request: pytest.FixtureRequest) -> None:
        self.reduction_factor: int = request.param

    def make(self, rungs: Sequence[int]) -> Asha:
        return Asha(rungs, self.reduction_factor)


def slow_decision(earlier: list[float], value: float, factor: int) -> str:
    """Apply the rule literally: count how many of all arrivals are strictly better."""
    if not math.isfinite(value):
        return "stop"
    everybody = [score for score in earlier if math.isfinite(score)] + [value]
    better = sum(score < value for score in everybody)
    return "continue" if better < max(1, math.floor(Fraction(len(everybody), factor))) else "stop"


@given(values=st.lists(scores, max_size=30), factor=st.integers(2, 5))
def test_decisions_follow_the_rule(values: list[float], factor: int) -> None:
    asha = Asha(RUNGS, factor)
    for number, value in enumerate(values):
        decision = asha.decide(1, value)
        assert decision.action == slow_decision(values[:number], value, factor)
        assert (decision.cutoff is None) == (not math.isfinite(value))
        if decision.cutoff is not None:
            assert (value <= decision.cutoff) == (decision.action == "continue")


def decided(
    state: RunState, number: int, rung: int, value: float, decision: Decision, family: str = ""
) -> None:
    """Journal one arrival at a rung; each is a trial of its own."""
    finite = value if math.isfinite(value) else None
    name = f"t{number:04d}"
    state.apply(trial_started(name, recipe={"family": family} if family else {}))
    state.apply(epoch(name, 1, rung=rung, val_nll=finite))
    state.apply(
        RungDecided(trial=name, rung=rung, value=finite, decision=decision.action,
                    cutoff=decision.cutoff, reason=decision.reason, time=0.0)
    )  # fmt: skip


@given(reports=arrivals, cut=st.integers(0, 40))
def test_a_replayed_run_gets_the_original_decisions(
    reports: list[tuple[int, float]], cut: int
) -> None:
    live, state = Asha(RUNGS, 3), state_of()
    for number, (rung, value) in enumerate(reports[:cut]):
        decided(state, number, rung, value, live.decide(rung, value))
    resumed = Asha(RUNGS, 3).replay(state)
    for rung, value in reports[cut:]:
        assert resumed.decide(rung, value) == live.decide(rung, value)


def test_the_first_continues_and_then_only_the_best_until_there_are_enough() -> None:
    asha = Asha(RUNGS, 3)
    actions = [asha.decide(1, value).action for value in [5.0, 6.0, 4.0, 4.5, 4.0, 4.2, 4.3]]
    # k is 1 up to the fifth arrival, 2 from the sixth on; the fifth ties with the best.
    assert actions == ["continue", "stop", "continue", "stop", "continue", "stop", "stop"]
    assert asha.decide(1, 3.9) == Decision(reason="promoted", cutoff=4.0)
    assert asha.decide(1, 9.0) == Decision(reason="above_cutoff", cutoff=4.0)


def test_a_trial_stopped_for_lack_of_time_counts_as_an_arrival() -> None:
    asha = Asha(RUNGS, 3)
    assert asha.decide(1, 0.1, in_time=False).reason == "no_time"
    assert asha.decide(1, 0.2) == Decision(reason="above_cutoff", cutoff=0.1)


@given(reports=st.lists(st.tuples(st.sampled_from(["", "a", "b"]), scores), max_size=40))
def test_each_family_is_decided_on_as_if_it_were_alone(reports: list[tuple[str, float]]) -> None:
    """A family that learns fast at first stops no trial of one that learns more in the end."""
    asha, state, alone = Asha(RUNGS, 3), state_of(), {"": Asha(RUNGS, 3), "a": Asha(RUNGS, 3)}
    alone["b"] = Asha(RUNGS, 3)
    for number, (family, value) in enumerate(reports):
        decision = asha.decide(1, value, family=family)
        assert decision == alone[family].decide(1, value)
        decided(state, number, 1, value, decision, family=family)
    resumed = Asha(RUNGS, 3).replay(state)
    for family, scheduler in alone.items():
        assert resumed.decide(1, 0.5, family=family) == scheduler.decide(1, 0.5)


def test_one_in_eta_continues() -> None:
    """Closed form: arrival n continues with probability k/n, if the order is random."""
    expected = sum(Fraction(max(1, n // 3), n) for n in range(1, 25))
    assert round(float(expected), 2) == 8.16
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(400):
        asha = Asha(RUNGS, 3)
        decisions = [asha.decide(1, value).action for value in rng.random(24)]
        counts.append(decisions.count("continue"))
    # A false alarm once in 10^9 (6 standard errors).
    assert abs(np.mean(counts) - float(expected)) < 6 * np.std(counts) / math.sqrt(len(counts))
