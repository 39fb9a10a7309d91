"""Suggestions: the trials that samplers ask for, new ones and unfinished ones."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from journal.events import Event, Kind
from journal.state import RunState
from journal.trial import Trial
from search.schedulers.verdict import verdict_on
from trainables.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A trial to start or to resume."""

    trial: str
    number: int
    kind: Kind
    recipe: Recipe
    seed: int
    attempt: int = 1
    checkpoints: tuple[str, ...] = ()
    """Checkpoints to resume from, the best first; the trial starts afresh if none loads."""

    @classmethod
    def again(cls, trial: Trial) -> "Suggestion":
        """Return a trial's next attempt, from its last usable checkpoint.

        If a trial was stopped at a rung and its checkpoint there is lost, it is scored again from
        an earlier checkpoint: it must not train past its end.
        """
        recipe = Recipe.from_mapping(trial.recipe, where=trial.name)
        stopped = verdict_on(trial, last_rung=recipe.schedule.epochs) is not None
        end = trial.rung_steps[trial.rung or 0] if stopped else trial.step + 1
        return cls(
            trial=trial.name,
            number=trial.number,
            kind=trial.kind,
            recipe=recipe,
            seed=trial.seed,
            attempt=trial.attempts + 1,
            checkpoints=tuple(c.path for c in reversed(trial.checkpoints) if c.step < end),
        )


Fits = Callable[[Suggestion], bool]
"""Says whether there is time for a trial, which may still lack the values that will be drawn."""


def always(_: Suggestion) -> bool:
    """Return True: without a deadline, there is time for every trial."""
    return True


class Sampler(Protocol):
    """A source of trials. `quorum.testing.samplers` has the tests that every sampler passes."""

    @property
    def left(self) -> int:
        """Trials that are left to start or resume."""

    @property
    def more(self) -> bool:
        """True while a trial is left to start or resume."""

    def next(self, fits: Fits = always) -> Suggestion | None:
        """Return the next trial that `fits`; None if none is left or none does.

        A trial that does not fit stays available.
        """

    def take_back(self, suggestion: Suggestion) -> None:
        """Take back the trial that was handed out last and did not start.

        It is available again: the next trial has its name, though perhaps another recipe.
        """

    def observe(self, event: Event) -> None:
        """Learn from a journalled event of the run."""


def remaining(fresh: Iterable[Suggestion], state: RunState, *, kind: Kind) -> list[Suggestion]:
    """Return the unfinished trials of a kind, then those of `fresh` that never started."""
    again = [Suggestion.again(trial) for trial in state.trials.unfinished(kind)]
    return [*again, *(new for new in fresh if new.trial not in state.trials)]
