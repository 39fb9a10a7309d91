"""Keep a run's folder within its disk budget while trials are running."""

import logging
import os
from bisect import insort
from collections.abc import Callable, Iterable
from pathlib import Path

from common.formats import file_size
from journal.trial import Trial
from trainables.records import WEIGHTS, RunFolder

log = logging.getLogger(__name__)

CANDIDATES_PER_MEMBER = 4
"""Number of trials per member of the ensemble whose weights are always kept."""


class DiskBudget:
    """The space that a run's folder may take, and the removal of weights to stay within it.

    Predictions and records are small and always kept. So are the weights of trials that could be
    selected (see `ensemble.selection.run_pool`). If these need too much, the weights of the trials
    with the lowest rungs and worst scores are removed, and these trials can no longer be
    selected. If that is not enough, no new trial starts.
    """

    def __init__(self, folder: RunFolder, *, limit: float, members: int) -> None:
        """`limit` is in bytes; `members` is the size of the ensemble that will be selected."""
        self._folder = folder
        self._limit = limit
        self._kept = CANDIDATES_PER_MEMBER * members
        self._counted: int | None = None
        """Bytes outside the checkpoints, which come and go; None before they are counted."""
        self._holders: list[Trial] = []
        """Trials of the search whose weights may still exist, best first."""
        self._warned = False

    @property
    def used(self) -> int:
        """The bytes in the run's folder."""
        return self._settled() + folder_bytes(self._folder.checkpoints)

    @property
    def full(self) -> bool:
        """True if no trial may start; the first time, this is logged."""
        if self.used <= self._limit:
            return False
        if not self._warned:
            self._warned = True
            log.warning(
                "%s takes %s, more than the limit of %s (--disk): no more trials start",
                self._folder.root, file_size(self.used), file_size(int(self._limit)),
            )  # fmt: skip
        return True

    def resume(self, trials: Iterable[Trial]) -> None:
        """Register the trials of earlier processes, and count the folder again."""
        self._counted, self._holders = None, []
        for trial in trials:
            self._hold(trial)

    def add(self, trial: Trial) -> None:
        """Count the files of a trial that has ended."""
        if self._counted is not None:
            self._counted += folder_bytes(self._folder.trial(trial.name))
        self._hold(trial)

    def make_room(self, *, before: Callable[[], object] = lambda: None) -> None:
        """Remove weights until the folder fits, those of the worst trials first.

        `before` is called before each removal. It must flush the journal, so that the trial's end
        is on disk before its weights go.
        """
        excess = self.used - self._limit
        while excess > 0 and len(self._holders) > self._kept:
            trial = self._holders.pop()
            path = self._folder.trial(trial.name) / WEIGHTS
            before()
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                continue
            log.info("the weights of %s are removed to save disk space", trial.name)
            self._counted = self._settled() - size
            excess -= size

    def _settled(self) -> int:
        if self._counted is None:
            self._counted = folder_bytes(self._folder.root) - folder_bytes(self._folder.checkpoints)
        return self._counted

    def _hold(self, trial: Trial) -> None:
        if trial.kind == "search" and trial.status in ("completed", "pruned"):
            insort(self._holders, trial, key=lambda each: each.rank)


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
