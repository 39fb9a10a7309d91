"""Keep a run's folder within its disk budget while trials are running."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from common.formats import file_size
from journal.trial import Trial
from trainables.records import WEIGHTS, RunFolder

log = logging.getLogger(__name__)

CANDIDATES_PER_MEMBER = 4
"""Completed trials whose weights are kept in any case, for each member of the ensemble."""


class DiskBudget:
    """The space that a run's folder may take, and the weights that are removed to keep to it.

    Predictions and records are small and always kept. The weights of a trial that was stopped
    early are never kept, because the pool holds completed trials only. If the rest needs too much,
    the weights of the completed trials with the worst scores are removed, and these trials can no
    longer be selected. If that is not enough, no new trial starts.
    """

    def __init__(self, folder: RunFolder, *, limit: float, members: int) -> None:
        """`limit` is in bytes; `members` is the size of the ensemble that will be selected."""
        self._folder = folder
        self._limit = limit
        self._kept = CANDIDATES_PER_MEMBER * members
        self._settled = folder_bytes(folder.root) - folder_bytes(folder.checkpoints)
        """Bytes outside the checkpoints, which come and go."""
        self._warned = False

    @property
    def used(self) -> int:
        """The bytes in the run's folder."""
        return self._settled + folder_bytes(self._folder.checkpoints)

    @property
    def full(self) -> bool:
        """True if no trial may start; the first time, this is logged."""
        if self.used <= self._limit:
            return False
        if not self._warned:
            self._warned = True
            log.warning(
                "%s takes %s of the %s that it may (--disk): no more trials start",
                self._folder.root, file_size(self.used), file_size(int(self._limit)),
            )  # fmt: skip
        return True

    def add(self, trial: Trial) -> None:
        """Count the files of a trial that has ended."""
        self._settled += folder_bytes(self._folder.trial(trial.name))

    def make_room(self, ranked: Iterable[Trial]) -> None:
        """Remove weights until the folder fits; `ranked` are the search's trials, best first."""
        excess = self.used - self._limit
        if excess <= 0:
            return
        completed = [trial for trial in ranked if trial.status == "completed"]
        for trial in reversed(completed[self._kept :]):
            path = self._folder.trial(trial.name) / WEIGHTS
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                continue
            log.info("the weights of %s are removed to save disk space", trial.name)
            self._settled -= size
            excess -= size
            if excess <= 0:
                return


def folder_bytes(folder: Path) -> int:
    """Return the bytes of the files below a folder; files that vanish meanwhile count as none."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(place, name).lstat().st_size
            except FileNotFoundError:
                continue
    return total
