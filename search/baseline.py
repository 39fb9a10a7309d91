"""The seeds of the equal-compute baseline: one configuration, trained again and again."""

from dataclasses import dataclass

from search.history import History
from search.suggestions import Suggestion
from trainables.recipe import Recipe
from trainables.seeds import derive_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """What to train from further seeds, each for its whole schedule."""

    recipe: Recipe
    count: int
    """s00, s01 … up to this many in all."""
    deadline: float | None
    """In unix seconds: none is started that could not finish before it."""

    def suggestions(self, history: History, *, root: int) -> list[Suggestion]:
        """The seeds to be gone on with, then those that were never started."""
        known = {trial.trial for trial in history.of("seed")}
        fresh = (
            Suggestion(
                trial=f"s{number:02d}",
                number=number,
                kind="seed",
                recipe=self.recipe,
                seed=derive_seed(root, "seed", number),
            )
            for number in range(self.count)
        )
        again = [Suggestion.again(trial) for trial in history.unfinished("seed")]
        return [*again, *(seed for seed in fresh if seed.trial not in known)]
