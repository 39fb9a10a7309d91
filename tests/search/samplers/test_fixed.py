"""Fixed lists of trials: unfinished ones come first."""

from journal.state import RunState
from quorum.testing.samplers import SamplerContract
from search.samplers.fixed import FixedTrials, Seeds
from tests.events import state_of, trial_ended, trial_started
from trainables.recipe import Recipe

RECIPE = Recipe(epochs=4)


class TestContractOfFixedTrials(SamplerContract):
    def make(self, state: RunState) -> FixedTrials:
        seeds = Seeds(recipe=RECIPE, count=self.TRIALS, deadline=None)
        return FixedTrials(seeds.suggestions(state, root=0))


def test_unfinished_seeds_come_first_and_none_comes_twice() -> None:
    recipe = RECIPE.to_mapping()
    state = state_of(
        trial_started("s00", kind="seed", recipe=recipe, number=0),
        trial_started("s01", kind="seed", recipe=recipe, number=1),
        trial_ended("s00", kind="seed"),
    )
    suggestions = Seeds(recipe=RECIPE, count=4, deadline=None).suggestions(state, root=0)
    assert [(s.trial, s.attempt) for s in suggestions] == [("s01", 2), ("s02", 1), ("s03", 1)]
    assert len({s.seed for s in suggestions}) == 3
