"""The contract suites catch samplers and schedulers that break the contract."""

from collections.abc import Sequence
from typing import Any

import pytest

from journal.order import OutOfOrderError
from journal.state import RunState
from quorum.testing.samplers import SamplerContract
from quorum.testing.schedulers import SchedulerContract
from search.samplers.fixed import FixedTrials
from search.samplers.suggestions import Suggestion
from search.schedulers.asha import Asha
from search.schedulers.scheduler import Decision
from trainables.recipe import Recipe


def suggestions(count: int) -> list[Suggestion]:
    return [
        Suggestion(trial=f"s{i:02d}", number=i, kind="seed", recipe=Recipe(), seed=i)
        for i in range(count)
    ]


class Forgetful(SamplerContract):
    """The sampler ignores the run's state: finished trials come again after a resume."""

    def make(self, state: RunState) -> FixedTrials:
        return FixedTrials(suggestions(self.TRIALS))


class Endless(SamplerContract):
    """The sampler hands out more trials than it should."""

    def make(self, state: RunState) -> FixedTrials:
        return FixedTrials(suggestions(self.TRIALS + 1))


class Careless(SchedulerContract):
    """The scheduler promotes scores that are not finite."""

    class Scheduler(Asha):
        def decide(self, rung: int, value: float | None, **about: Any) -> Decision:
            return super().decide(rung, 0.0 if value is None else value, **about)

    def make(self, rungs: Sequence[int]) -> Asha:
        return self.Scheduler(rungs, 3)


class Amnesiac(SchedulerContract):
    """The scheduler does not take over the decisions of a resumed run."""

    class Scheduler(Asha):
        def replay(self, state: RunState) -> Asha:
            return self

    def make(self, rungs: Sequence[int]) -> Asha:
        return self.Scheduler(rungs, 3)


@pytest.mark.parametrize(
    ("contract", "test"),
    [
        (Forgetful(), "test_after_a_resume_unfinished_trials_come_first"),
        (Endless(), "test_each_trial_is_handed_out_once"),
        (Careless(), "test_a_score_that_is_not_finite_stops_the_trial_and_counts_for_nothing"),
        (Amnesiac(), "test_a_replayed_scheduler_continues_as_the_live_one"),
    ],
)
def test_a_broken_implementation_fails(contract: object, test: str) -> None:
    with pytest.raises((AssertionError, OutOfOrderError)):
        getattr(contract, test)()
