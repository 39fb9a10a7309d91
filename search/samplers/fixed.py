"""Trials that are fixed beforehand: the seeds of the equal-compute baseline, for one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from common.seeds import derive_seed
from journal.history import History
from journal.states import Kind
from search.samplers.suggestions import Suggestion
from trainables.recipe import Recipe


class Fixed(Protocol):
    """Trials to be trained one after the other, each for its whole schedule."""

    @property
    def kind(self) -> Kind:
        """What they count as."""

    @property
    def recipe(self) -> Recipe:
        """Whose epochs all of them have, and whose pace says whether there is time for one."""

    @property
    def deadline(self) -> float | None:
        """In unix seconds: none is started that could not finish before it."""

    def suggestions(self, history: History, *, root: int) -> list[Suggestion]:
        """Those that are left, in order; `root` is that of the run's seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """What to train from further seeds, each for its whole schedule."""

    recipe: Recipe
    count: int
    """s00, s01 … up to this many in all."""
    deadline: float | None
    """In unix seconds: none is started that could not finish before it."""

    @property
    def kind(self) -> Kind:
        """What they count as."""
        return "seed"

    def suggestions(self, history: History, *, root: int) -> list[Suggestion]:
        """The seeds to be gone on with, then those that were never started."""
        fresh = (
            Suggestion(
                trial=f"s{number:02d}",
                number=number,
                kind=self.kind,
                recipe=self.recipe,
                seed=derive_seed(root, "seed", number),
            )
            for number in range(self.count)
        )
        return left_of(fresh, history, kind=self.kind)


def left_of(wanted: Iterable[Suggestion], history: History, *, kind: Kind) -> list[Suggestion]:
    """Of the trials of one kind, those to be gone on with, then those that were never started."""
    again = [Suggestion.again(trial) for trial in history.unfinished(kind)]
    return [*again, *(one for one in wanted if one.trial not in history.trials)]
