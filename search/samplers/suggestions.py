"""Trials to run, and who hands them out to Tune: here, in order, from a given list.

Tune tells a searcher nothing about the result that stops a trial and swallows its errors, so
ours are not fed by Tune, nor saved by it: what they know comes from the journal, the same
events live and on resume.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ray.tune.search import Searcher

from journal.history import TrialHistory
from journal.states import Kind
from trainables.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A trial to run, or to go on with."""

    trial: str
    number: int
    kind: Kind
    recipe: Recipe
    seed: int
    attempt: int = 1
    checkpoints: tuple[str, ...] = ()
    """Where to go on, the best first; a fresh start if none of them loads."""

    @classmethod
    def again(cls, trial: TrialHistory) -> "Suggestion":
        """The same trial once more, from its last checkpoint."""
        return cls(
            trial=trial.trial,
            number=trial.number,
            kind=trial.kind,
            recipe=Recipe.from_mapping(trial.recipe, where=trial.trial),
            seed=trial.seed,
            attempt=trial.attempts + 1,
            checkpoints=tuple(path for _, path in reversed(trial.checkpoints)),
        )


class FixedTrials(Searcher):
    """Hands out a list of trials, in order."""

    def __init__(
        self,
        suggestions: Iterable[Suggestion],
        *,
        launch: Callable[[Suggestion], dict[str, Any] | None],
        late: Callable[[], bool] = lambda: False,
    ) -> None:
        """`launch` makes a trial's configuration, or None where nothing more can start.

        When `late`, nothing more is started.
        """
        super().__init__()
        self.launched = 0
        """Trials handed out."""
        self._waiting = list(suggestions)
        self._launch = launch
        self._late = late

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002 (Tune's hook)
        """Tune's hook: the next trial's configuration, or FINISHED."""
        suggestion = None if self._late() else self.next()
        if suggestion is None:
            return Searcher.FINISHED
        self.launched += 1
        # Not None, after which Tune would wait and ask again.
        return self._launch(suggestion) or Searcher.FINISHED

    @property
    def more(self) -> bool:
        """Whether there is a trial left to hand out."""
        return bool(self._waiting)

    def next(self) -> Suggestion | None:
        """The next trial; None when there is none left."""
        return self._waiting.pop(0) if self._waiting else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tune's hook, not needed: the journal tells more."""

    def save(self, checkpoint_path: str) -> None:
        """Tune's hook, not needed: resume is built from the journal."""

    def restore(self, checkpoint_path: str) -> None:
        """Tune's hook, not needed: resume is built from the journal."""
