"""Schedulers decide at each rung whether a trial continues; `asha` is the one in use."""

from dataclasses import dataclass
from typing import Protocol

from journal.events import Action, Reason
from journal.state import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision to continue or stop a trial at a rung, with its reason."""

    reason: Reason
    cutoff: float | None = None
    """The highest score that continues; None if the score was not compared."""

    @property
    def action(self) -> Action:
        """The action that follows from the reason."""
        return "continue" if self.reason == "promoted" else "stop"


class Scheduler(Protocol):
    """Decides on trials. `quorum.testing.schedulers` has the tests that every scheduler passes."""

    def replay(self, state: RunState) -> "Scheduler":
        """Count the decisions that a run has made, and return the scheduler."""

    def decide(
        self, rung: int, value: float | None, *, in_time: bool = True, family: str = ""
    ) -> Decision:
        """Decide on a trial of `family` that scored `value` at `rung`, once per trial and rung.

        `family` is empty in a sweep without families.
        """
