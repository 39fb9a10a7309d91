"""How long the student and its twin are trained: as planned, or what a deadline allows.

With t seconds for an epoch with a teacher, r·t for one without, and k epochs done, E epochs
for both end after (E − k)·t + E·r·t. Before its cooldown a training does not depend on how
long it will be; so where a machine turns out slower or faster than it was when the schedule
was laid, the student's is still shortened or lengthened, and the twin gets the same epochs.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.files import dump_json, read_json, write_bytes_atomically
from ensemble.student.student import StudentResult
from trainables.recipe import Recipe
from trainables.training.loop import EpochReport
from trainables.training.optimizers import cooldown_epochs

SAFETY = 0.92
"""Share of the time left that is planned for; a noisy machine has the rest."""

LONGER = 2
"""With time to spare, up to this many times the epochs that were planned: teaching pays for
long (Beyer et al., 2022)."""

WORTHWHILE = 1.25
"""A schedule under way is lengthened only to this many times its epochs or more."""

RECENT = 3
"""Epochs whose median is the pace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochSeconds:
    """What one epoch of the student takes."""

    taught: float
    plain: float


class Timetable:
    """The student's epochs, kept in a file for a resume."""

    def __init__(
        self,
        recipe: Recipe,
        path: Path,
        *,
        deadline: float | None,
        rehearsed: Callable[[], EpochSeconds],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take up the plan in `path`, or lay one: by `rehearsed` if there is a `deadline`.

        `deadline`, for both trainings, and `clock` are in unix seconds.
        """
        self._path, self._deadline, self._clock = path, deadline, clock
        self._recent: list[float] = []
        self._most = LONGER * recipe.schedule.epochs
        if path.exists():
            plan = read_json(path)
            self._twin = float(plan["twin"])
            self.recipe = recipe.with_values(epochs=int(plan["epochs"]))
            return
        self._twin = 1.0
        """Seconds of an epoch without a teacher, as a share of one with it."""
        epochs = recipe.schedule.epochs
        if deadline is not None:
            each = rehearsed()
            self._twin = each.plain / each.taught
            fitting = int(SAFETY * (deadline - clock()) / (each.taught + each.plain))
            epochs = max(1, min(self._most, fitting))
        self.recipe = recipe
        self._set(epochs)

    def teach(
        self,
        train: Callable[[Recipe, Callable[[EpochReport], None]], StudentResult],
        on_report: Callable[[EpochReport], None],
    ) -> StudentResult:
        """Run `train(recipe, on_report)`, again with other epochs where these do not fit."""

        def watched(report: EpochReport) -> None:
            on_report(report)
            self._recent.append(report.seconds)
            self._watch(report.step)

        while True:
            try:
                return train(self.recipe, watched)
            except _AnotherLengthError as other:
                self._set(other.epochs)

    def _watch(self, done: int) -> None:
        if self._deadline is None or done == self.recipe.schedule.epochs:
            return
        pace = statistics.median(self._recent[-RECENT:])
        left, epochs = self._deadline - self._clock(), self.recipe.schedule.epochs
        if ((epochs - done) + epochs * self._twin) * pace <= left:
            fitting = min(self._most, int((SAFETY * left / pace + done) / (1 + self._twin)))
            if fitting >= WORTHWHILE * epochs and done <= _trunk(epochs, self.recipe):
                raise _AnotherLengthError(fitting)
            return
        fitting = max(_shortest(done, self.recipe), int((left / pace + done) / (1 + self._twin)))
        if fitting < epochs:
            raise _AnotherLengthError(fitting)

    def _set(self, epochs: int) -> None:
        self.recipe = self.recipe.with_values(epochs=epochs)
        plan = {"epochs": epochs, "twin": self._twin}
        write_bytes_atomically(self._path, dump_json(plan).encode())


class _AnotherLengthError(Exception):
    """A schedule of `epochs` fits the deadline better than the one under way."""

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs)
        self.epochs = epochs


def _shortest(done: int, recipe: Recipe) -> int:
    """The shortest schedule whose cooldown has not begun after `done` epochs."""
    epochs = done + 1
    while _trunk(epochs, recipe) < done:
        epochs += 1
    return epochs


def _trunk(epochs: int, recipe: Recipe) -> int:
    """Epochs of a schedule before its cooldown."""
    return epochs - cooldown_epochs(epochs, recipe.schedule.cooldown_fraction)
