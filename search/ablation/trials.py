"""The trials of an ablation: every variant from every seed.

They are trained seed by seed. When the time runs out, every seed but the last has all its variants,
so they can be compared fairly.
"""

from dataclasses import dataclass

from common.seeds import derive_seed
from journal.events import Kind
from journal.state import RunState
from search.ablation.ablation import Ablation, trial_name
from search.samplers.suggestions import Suggestion, remaining
from trainables.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationTrials:
    """The trials of an ablation, as `search.tune.sweep.run_fixed` takes them."""

    ablation: Ablation
    recipe: Recipe
    """The full recipe."""
    deadline: float | None
    """A trial starts only if it can finish before this time, in unix seconds."""

    @property
    def kind(self) -> Kind:
        """The kind that these trials count as."""
        return "search"

    def suggestions(self, state: RunState, *, root: int) -> list[Suggestion]:
        """Return the unfinished trials, then seed by seed those that never started."""
        variants = self.ablation.variants(self.recipe)
        fresh = (
            Suggestion(
                trial=trial_name(name, seed),
                number=seed * len(variants) + place,
                kind=self.kind,
                recipe=recipe,
                seed=derive_seed(root, "ablation", seed),
            )
            for seed in range(self.ablation.seeds)
            for place, (name, recipe) in enumerate(variants.items())
        )
        return remaining(fresh, state, kind=self.kind)
