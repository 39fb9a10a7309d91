"""Optuna's storage for a study that one process writes, at a cost that does not grow with it.

Two things grow in Optuna's own storage. Every value that is set is synced to disk (ten times a
trial: 35 ms on a busy disk), though the study can be rebuilt from the run's journal. And TPE reads
every trial for each suggestion (7 ms after 1,000 trials, 25 ms after 3,000, four parameters).

So the file is written without waiting for the disk, and while a suggestion is drawn the study shows
a window of its trials: the running ones, the last `WINDOW` that ended, and the best `BEST`. TPE
divides trials into good ones, at most 25 of them, and others. The window always holds all good
ones; of the others it leaves out the oldest, which have the lowest weights in TPE.
`benchmarks/window.py` compares both.
"""

import json
from bisect import insort
from collections.abc import Container, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

WINDOW = 1000
"""Ended trials, the last ones, that a suggestion takes into account."""
BEST = 25
"""Trials that stay in the window because they are the best: as many as TPE models as good ones."""


class StudyStorage(JournalStorage):
    """The storage of one study. Trials are identified by their numbers."""

    def __init__(self, path: Path | None, *, window: int = WINDOW) -> None:
        """Start empty. `path` is a new file that gets Optuna's journal; None for no file."""
        self._log = _Log(path)
        self._window = window
        self._asking = False
        self._running: set[int] = set()
        self._ended: list[FrozenTrial] = []
        """Trials that TPE learns from, by number."""
        self._best: list[FrozenTrial] = []
        """The best of them, best first."""
        super().__init__(self._log)

    def move(self, path: Path) -> None:
        """Rename the file, which replaces any at `path`."""
        self._log.move(path)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Show only the window's trials until the end of the block."""
        self._asking = len(self._ended) > self._window
        try:
            yield
        finally:
            self._asking = False

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Add a trial to the study."""
        number = super().create_new_trial(study_id, template_trial)
        self._note(number)
        return number

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Start or end a trial."""
        done = super().set_trial_state_values(trial_id, state, values)
        self._note(trial_id)
        return done

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the study's trials by number; while a suggestion is drawn, the window's."""
        if not self._asking or deepcopy:
            return super().get_all_trials(study_id, deepcopy, states)
        running = map(self.get_trial, self._running)
        shown = (*self._best, *self._ended[-self._window :], *running)
        trials = {trial.number: trial for trial in shown if states is None or trial.state in states}
        return [trials[number] for number in sorted(trials)]

    def _note(self, number: int) -> None:
        trial = self.get_trial(number)
        if trial.state is TrialState.RUNNING:
            self._running.add(number)
            return
        self._running.discard(number)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            insort(self._ended, trial, key=lambda each: each.number)
            insort(self._best, trial, key=_rank)
            del self._best[BEST:]


class _Log(BaseJournalBackend):
    """Optuna's journal, kept only until the storage has read it, and written to a file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._unread: list[str] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(line + "\n" for line in lines)
        self._unread += lines

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:  # noqa: ARG002
        lines, self._unread = self._unread, []
        yield from map(json.loads, lines)

    def move(self, path: Path) -> None:
        if self._path is not None:
            self._path.replace(path)
            self._path = path


def _rank(trial: FrozenTrial) -> tuple[int, int, float, int]:
    """Return a key that sorts trials as TPE does: complete ones first, ties by number."""
    if trial.state is TrialState.COMPLETE:
        return (0, 0, trial.value or 0.0, trial.number)
    if not trial.intermediate_values:
        return (2, 0, 0.0, trial.number)
    step, value = max(trial.intermediate_values.items())
    return (1, -step, value, trial.number)
