"""Schedulers decide at each rung whether a trial continues; `asha` is the one in use."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from journal.events import Action, Reason
from journal.state import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision to continue, stop or pause a trial at a rung, with its reason."""

    reason: Reason
    cutoff: float | None = None
    """The highest score that continues; None if the score was not compared."""

    @property
    def action(self) -> Action:
        """The action that follows from the reason."""
        actions: Mapping[Reason, Action] = {"promoted": "continue", "no_time": "pause"}
        return actions.get(self.reason, "stop")


class Scheduler(Protocol):
    """Decides on trials. `quorum.testing.schedulers` has the tests that every scheduler passes."""

    def replay(self, state: RunState) -> "Scheduler":
        """Count the decisions that a run has made, and return the scheduler."""

    def decide(
        self,
        rung: int,
        value: float | None,
        *,
        in_time: bool = True,
        family: str = "",
        paused: bool = False,
    ) -> Decision:
        """Decide on a trial of `family` that scored `value` at `rung`, once per trial and rung.

        A trial that could not reach the next rung `in_time` is paused. Later it may be decided on
        again, as `paused`. `family` is empty in a sweep without families.
        """
