"""Shorten a trial's schedule if it would end after its sweep.

A trial counts only with a finished cooldown. One that is late, for example because other programs
use the machine, would be stopped before its last rung, and all its work lost. So its cooldown
begins early: at the last epoch from which one still ends in time, by the pace of its last epochs.
"""

import time
from collections import deque
from collections.abc import Callable
from math import floor

from common.rungs import cooldown_epochs, shortened_rung
from trainables.recipe import Recipe
from trainables.stages import stage_at
from trainables.trainer import EpochReport

LAPS = 3
"""Number of the last epochs that the pace is computed from."""

MARGIN = 0.5
"""Time kept after the last epoch to make and save the predictions, in epochs."""

MARGIN_SECONDS = 2.0
"""The least of that time, in seconds."""


class TimeLimit:
    """The time until which one trial may train."""

    def __init__(
        self,
        recipe: Recipe,
        rungs: tuple[int, ...],
        *,
        stop_by: float | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """The trial is stopped at `stop_by`, in unix seconds as of `clock`; None for never."""
        self._stages = recipe.schedule.stages
        self._fraction = recipe.schedule.cooldown_fraction
        self._rungs = rungs
        lower = rungs[-2] if len(rungs) > 1 else 0
        self._trunk = lower - cooldown_epochs(lower, self._fraction) if lower else 0
        """Epochs of the trunk before the last rung but one, if there is one."""
        self._stop_by = stop_by
        self._clock = clock
        self._laps: deque[float] = deque(maxlen=LAPS)
        self._before: float | None = None

    def shorter(self, report: EpochReport) -> tuple[int, ...] | None:
        """Return the shorter rungs that the trial should have from now on; None for no change.

        Nothing changes before the last stage, whose pace is unknown; before the last rung but one;
        or in the last cooldown.
        """
        now = self._clock()
        lap = report.seconds if self._before is None else now - self._before
        self._before = now
        if self._stop_by is None or not self._is_in_last_stage(report.epoch):
            return None
        self._laps.append(lap)
        if report.phase != "trunk" or report.epoch <= self._trunk:
            return None
        pace = sum(self._laps) / len(self._laps)
        left = floor((self._stop_by - now - max(MARGIN * pace, MARGIN_SECONDS)) / pace)
        rung = shortened_rung(self._rungs, self._fraction, epoch=report.epoch, left=max(0, left))
        return None if rung is None else (*self._rungs[:-1], rung)

    def _is_in_last_stage(self, epoch: int) -> bool:
        last = max(0, len(self._stages) - 1)
        return stage_at(self._stages, epoch) == last
