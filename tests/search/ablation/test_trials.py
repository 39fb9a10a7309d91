"""The trials of an ablation, in the order in which they are trained."""

from common.seeds import derive_seed
from journal.state import RunState
from search.ablation.trials import AblationTrials
from tests.events import state_of, trial_ended, trial_started
from tests.search.ablation.test_ablation import RECIPE, two


def test_every_seed_trains_every_variant_before_the_next_seed() -> None:
    trials = AblationTrials(ablation=two(seeds=2), recipe=RECIPE, deadline=None)
    suggestions = trials.suggestions(RunState(), root=7)
    variants = ["full", "no-ema", "no-whitening", "bare"]
    assert [s.trial for s in suggestions] == [f"{v}-{seed}" for seed in (0, 1) for v in variants]
    assert [s.number for s in suggestions] == list(range(8))
    assert [s.seed for s in suggestions] == [
        derive_seed(7, "ablation", seed) for seed in (0, 1) for _ in variants
    ]


def test_unfinished_trials_come_first_and_no_trial_comes_twice() -> None:
    trials = AblationTrials(ablation=two(seeds=1), recipe=RECIPE, deadline=None)
    state = state_of()
    for begun in trials.suggestions(RunState(), root=0)[:2]:
        state.apply(
            trial_started(
                begun.trial, number=begun.number, recipe=begun.recipe.to_mapping(), seed=begun.seed
            )
        )
    state.apply(trial_ended("full-0"))
    remaining = trials.suggestions(state, root=0)
    assert [(s.trial, s.attempt) for s in remaining] == [
        ("no-ema-0", 2), ("no-whitening-0", 1), ("bare-0", 1),
    ]  # fmt: skip
