"""One source of trials after another, without a pause between them.

A sweep on a deadline starts no trial that could not finish, so its last minutes would find
one worker after another idle. The seeds of the best configuration are to be trained anyway:
whoever is free begins with them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.tune.search import Searcher

from search.history import History
from search.sampler import FixedTrials, Suggestion
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


class Relay(FixedTrials):
    """Hands out what `first` has, and from then on what `following` makes."""

    def __init__(self, first: FixedTrials, following: Callable[[], FixedTrials | None]) -> None:
        """`following` is called once, when `first` hands out nothing more.

        It makes the next source, or None if there is nothing to go on with.
        """
        super().__init__((), launch=first.launch)
        self._first = first
        self._following = following
        self._second: FixedTrials | None = None
        self._over = False

    def suggest(self, trial_id: str) -> Any:
        """Tune's hook: the next trial's configuration, or FINISHED."""
        if not self._over:
            found = self._first.suggest(trial_id)
            if found != Searcher.FINISHED:
                self.launched += 1
                return found
            self._over, self._second = True, self._following()
        if self._second is None:
            return Searcher.FINISHED
        return self._second.suggest(trial_id)

    @property
    def more(self) -> bool:
        """Whether the first source has a trial left to hand out."""
        return self._first.more
