"""Trials that are known beforehand, such as the seeds of the equal-compute baseline."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from common.seeds import derive_seed
from journal.events import Event, Kind
from journal.state import RunState
from search.samplers.suggestions import Fits, Suggestion, always, remaining
from trainables.recipe import Recipe


class FixedTrials:
    """A sampler that hands out a list of trials, in order."""

    def __init__(self, suggestions: Iterable[Suggestion]) -> None:
        """`suggestions` are handed out once each."""
        self._waiting = list(suggestions)

    @property
    def more(self) -> bool:
        """True while a trial is left to start or resume."""
        return bool(self._waiting)

    @property
    def left(self) -> int:
        """The trials that are left to start or resume."""
        return len(self._waiting)

    def next(self, fits: Fits = always) -> Suggestion | None:
        """Return the first trial that `fits`; None if there is none.

        An unfinished trial that does not fit is skipped. A new one is not, because new trials are
        in the order of their importance.
        """
        for index, trial in enumerate(self._waiting):
            if fits(trial):
                return self._waiting.pop(index)
            if trial.attempt == 1:
                return None
        return None

    def take_back(self, suggestion: Suggestion) -> None:
        """Put a trial that was handed out but did not start back at the front of the list."""
        self._waiting.insert(0, suggestion)

    def observe(self, event: Event) -> None:
        """Do nothing: the list is fixed."""


class FixedPlan(Protocol):
    """A list of trials, each to be trained for its whole schedule."""

    @property
    def kind(self) -> Kind:
        """The kind of trials they count as."""

    @property
    def recipe(self) -> Recipe:
        """The recipe that sets their epochs and whose pace predicts their time."""

    @property
    def deadline(self) -> float | None:
        """Unix seconds: a trial starts only if it can finish before then."""

    def suggestions(self, state: RunState, *, root: int) -> list[Suggestion]:
        """Return the remaining trials, in order; `root` is the run's root seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """One recipe trained from further seeds."""

    recipe: Recipe
    count: int
    """Seeds in all: s00, s01 …"""
    deadline: float | None
    """Unix seconds: a seed starts only if it can finish before then."""

    @property
    def kind(self) -> Kind:
        """The kind of trials they count as."""
        return "seed"

    def suggestions(self, state: RunState, *, root: int) -> list[Suggestion]:
        """Return the unfinished seeds, then those that never started."""
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
        return remaining(fresh, state, kind=self.kind)
