"""Tests that every scheduler passes.

class TestMyScheduler(SchedulerContract):
    def make(self, rungs: Sequence[int]) -> Scheduler:
        return MyScheduler(rungs)
"""

import math
from collections.abc import Sequence

from journal.events import EpochEnded, RungDecided, RunStarted, TrialStarted
from journal.state import RunState
from search.schedulers.scheduler import Decision, Scheduler

RUNGS = (1, 3, 9)
NOT_FINITE = (math.nan, math.inf, -math.inf, None)
SCORES = (0.9, 0.4, 0.7, 0.2, 0.5, 0.3, 0.8, 0.1)


class SchedulerContract:
    """Tests of a scheduler; subclass it and define `make`."""

    def make(self, rungs: Sequence[int]) -> Scheduler:
        """Return a new scheduler for rising epoch budgets."""
        raise NotImplementedError

    def test_no_trial_continues_from_the_last_rung(self) -> None:
        """There is nothing left to train."""
        assert self.make(RUNGS).decide(9, 0.1) == Decision(reason="last_rung")

    def test_a_score_that_is_not_finite_stops_the_trial_and_counts_for_nothing(self) -> None:
        """Later decisions are the same as without this score."""
        scheduler, fresh = self.make(RUNGS), self.make(RUNGS)
        for value in NOT_FINITE:
            assert scheduler.decide(1, value) == Decision(reason="not_finite")
        assert [scheduler.decide(1, v) for v in SCORES] == [fresh.decide(1, v) for v in SCORES]

    def test_a_trial_without_time_for_the_next_rung_is_paused(self) -> None:
        """Its score is not compared."""
        decision = self.make(RUNGS).decide(1, 0.1, in_time=False)
        assert (decision.action, decision.reason, decision.cutoff) == ("pause", "no_time", None)

    def test_a_paused_trial_is_decided_on_again(self) -> None:
        """Its score counts once: the decision is that of a trial that arrives last."""
        for cut in range(1, len(SCORES)):
            first, second = self.make(RUNGS), self.make(RUNGS)
            first.decide(1, SCORES[0], in_time=False)
            for value in SCORES[1:cut]:
                first.decide(1, value)
                second.decide(1, value)
            assert first.decide(1, SCORES[0], paused=True) == second.decide(1, SCORES[0])
            assert [first.decide(1, v) for v in SCORES] == [second.decide(1, v) for v in SCORES]

    def test_a_decision_that_compares_scores_names_its_cutoff(self) -> None:
        """A score up to the cutoff continues, a higher one stops."""
        scheduler = self.make(RUNGS)
        for value in SCORES:
            decision = scheduler.decide(1, value)
            if decision.cutoff is not None:
                expected = "promoted" if value <= decision.cutoff else "above_cutoff"
                assert decision.reason == expected

    def test_equal_arrivals_get_equal_decisions(self) -> None:
        """Whatever happens at other rungs."""
        first, second = self.make(RUNGS), self.make(RUNGS)
        for value in SCORES:
            assert first.decide(1, value) == second.decide(1, value)

    def test_a_family_may_be_given(self) -> None:
        """A scheduler may ignore it."""
        decision = self.make(RUNGS).decide(1, 0.1, family="finetune")
        assert decision.action in ("continue", "stop")

    def test_a_replayed_scheduler_continues_as_the_live_one(self) -> None:
        """From any point of the run."""
        for cut in range(len(SCORES)):
            live, state = self.make(RUNGS), RunState()
            state.apply(RunStarted(run="simulated", spec={}, time=0.0))
            for number, value in enumerate(SCORES[:cut]):
                _arrive(state, number, value, live.decide(1, value))
            replayed = self.make(RUNGS).replay(state)
            for value in SCORES[cut:]:
                assert replayed.decide(1, value) == live.decide(1, value)


def _arrive(state: RunState, number: int, value: float, decision: Decision) -> None:
    """Journal a trial that was scored at the first rung and decided on."""
    name = f"t{number:04d}"
    state.apply(
        TrialStarted(
            trial=name, number=number, kind="search", recipe={}, seed=0, attempt=1, time=0.0
        )
    )
    state.apply(EpochEnded(trial=name, step=1, epoch=1, rung=1, val_nll=value, time=0.0))
    state.apply(
        RungDecided(
            trial=name,
            rung=1,
            value=value,
            decision=decision.action,
            cutoff=decision.cutoff,
            reason=decision.reason,
            time=0.0,
        )
    )
