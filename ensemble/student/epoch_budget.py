"""Fit the number of epochs of both students to a deadline.

With t seconds for an epoch with a teacher, r·t for one without, and k epochs done, E epochs
of both end after (E − k)·t + E·r·t. Where only a few epochs fit, they are made longer or shorter to
use the time; otherwise, of a time for 1.9 epochs, nearly half would be lost.

Until its cooldown begins, a training does not depend on the length of its schedule. If the machine
turns out slower or faster than in the rehearsal, the student's schedule can therefore still change,
and the plain student gets the same number of epochs.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.files import dump_json, read_json, write_bytes_atomically
from common.rungs import cooldown_epochs
from ensemble.student.distillation import StudentResult
from trainables.recipe import Recipe
from trainables.trainer import EpochReport

SAFETY = 0.92
"""Share of the remaining time that is planned; the rest absorbs a noisy machine."""

MAX_LENGTHENING = 2
"""Largest number of epochs to plan if time allows, as a multiple of the longer of two schedules:
the recipe's, which a tight plan may have cut to one epoch, and that of the trial that the student
starts from. Distillation gains from long schedules (Beyer et al., 2022)."""

MIN_LENGTHENING = 1.25
"""Smallest factor by which a running schedule is lengthened."""

FEW = 4
"""Number of epochs below which their length is fitted to the time."""

SHORTEST = 0.5
"""Least share of an epoch's usual length that is worth training."""

RECENT = 3
"""Number of recent epochs whose median time is the current pace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSeconds:
    """The time that one epoch takes, with a teacher and without."""

    taught: float
    plain: float


class EpochBudget:
    """The number of epochs for both students, kept in a file so that a resumed run can read it."""

    def __init__(
        self,
        recipe: Recipe,
        path: Path,
        *,
        deadline: float | None,
        rehearse: Callable[[], EpochSeconds],
        fewest: int = 1,
        trial_epochs: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read the plan in `path`, or make one: from `rehearse` if there is a `deadline`.

        `deadline`, for both trainings, and `clock` are in unix seconds. `fewest` is 0 for a
        student that may also ship untrained, because it starts from a trained network, whose
        schedule had `trial_epochs`.
        """
        self._path, self._deadline, self._clock = path, deadline, clock
        self._recent: list[float] = []
        self._most = MAX_LENGTHENING * max(recipe.schedule.epochs, trial_epochs)
        if path.exists():
            plan = read_json(path)
            self._plain_share = float(plan["twin"])
            self.epochs = int(plan["epochs"])
            passes = plan.get("passes", recipe.schedule.passes)  # early versions had no such key
            self.recipe = recipe.with_values(epochs=max(1, self.epochs), passes=passes)
            return
        self._plain_share = 1.0
        """Time of an epoch without a teacher, as a share of one with a teacher."""
        epochs = recipe.schedule.epochs
        if deadline is not None:
            each = rehearse()
            self._plain_share = each.plain / each.taught
            fitting = SAFETY * (deadline - clock()) / (each.taught + each.plain)
            epochs, length = _fitted(fitting, fewest=fewest, most=self._most)
            recipe = recipe.with_values(passes=length * recipe.schedule.passes)
        self.recipe = recipe
        self._set(epochs)

    def train(
        self,
        train: Callable[[Recipe, Callable[[EpochReport], None]], StudentResult],
        on_report: Callable[[EpochReport], None],
    ) -> StudentResult:
        """Run `train(recipe, on_report)`; run it again whenever the number of epochs changes."""

        def watch(report: EpochReport) -> None:
            on_report(report)
            self._recent.append(report.seconds)
            self._reconsider(report.step)

        while True:
            try:
                return train(self.recipe, watch)
            except _EpochsChangedError as change:
                self._set(change.epochs)

    def _reconsider(self, done: int) -> None:
        """Raise `_EpochsChangedError` if another number of epochs fits the deadline better."""
        if self._deadline is None or done == self.recipe.schedule.epochs:
            return
        pace = statistics.median(self._recent[-RECENT:])
        remaining, epochs = self._deadline - self._clock(), self.recipe.schedule.epochs
        if ((epochs - done) + epochs * self._plain_share) * pace <= remaining:
            fitting = int((SAFETY * remaining / pace + done) / (1 + self._plain_share))
            longer = min(self._most, fitting)
            in_trunk = done <= _trunk_epochs(epochs, self.recipe)
            if longer >= MIN_LENGTHENING * epochs and in_trunk:
                raise _EpochsChangedError(longer)
            return
        fitting = int((remaining / pace + done) / (1 + self._plain_share))
        shorter = max(_shortest(done, self.recipe), fitting)
        if shorter < epochs:
            raise _EpochsChangedError(shorter)

    def _set(self, epochs: int) -> None:
        self.epochs = epochs
        """Epochs of each training; 0 if there is no time for any."""
        self.recipe = self.recipe.with_values(epochs=max(1, epochs))
        plan = {
            "epochs": epochs,
            "passes": self.recipe.schedule.passes,
            "twin": self._plain_share,
        }
        write_bytes_atomically(self._path, dump_json(plan).encode())


class _EpochsChangedError(Exception):
    """Interrupts a training so that it continues with another number of epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs)
        self.epochs = epochs


def _fitted(fitting: float, *, fewest: int, most: int) -> tuple[int, float]:
    """Return how many epochs to train in the time of `fitting` usual ones, and their length."""
    epochs = max(fewest, min(most, int(fitting)))
    if epochs == 0 and fitting >= SHORTEST:
        epochs = 1
    if epochs in (0, most) or epochs >= FEW:
        return epochs, 1.0
    return epochs, max(SHORTEST, fitting / epochs)


def _shortest(done: int, recipe: Recipe) -> int:
    """Return the shortest schedule whose cooldown has not begun after `done` epochs.

    If there is none, return the current length: its cooldown begins now or has begun.
    """
    epochs = recipe.schedule.epochs
    return next((n for n in range(done + 1, epochs) if _trunk_epochs(n, recipe) >= done), epochs)


def _trunk_epochs(epochs: int, recipe: Recipe) -> int:
    """Return the number of epochs before the cooldown of a schedule."""
    return epochs - cooldown_epochs(epochs, recipe.schedule.cooldown_fraction)
