"""Write changes to a store of MLflow runs, some of which it may refuse."""

from collections.abc import Callable, Iterable
from typing import Protocol

from search.mlflow.projection import Projection
from search.mlflow.runs import Outcome, RunChange
from trainables.records import RunFolder

MOST_REFUSED = 3
"""A store that refuses this many runs in a row counts as not answering."""


class Target(Protocol):
    """A connection to the store that changes are written to; `Store` is MLflow's.

    `quorum.testing.mlflow` has the tests that every store passes.
    """

    def write(self, change: RunChange) -> Outcome:
        """Write a change to its run, creating it if it is new; a repeat changes nothing."""


Connect = Callable[[str, RunFolder, Projection], Target]
"""Connects to the store of a run at a tracking URI."""


def write_changes(
    store: Target, changes: Iterable[RunChange], refused: dict[str, Exception]
) -> list[Outcome]:
    """Write every change, except those of runs that the store refuses.

    `refused` maps the runs that were refused the last time to their errors. They are tried last,
    and the mapping is brought up to date.

    Raises:
        Exception: the store's, if it accepts nothing, or if MOST_REFUSED runs in a row fail twice.
            This avoids a time-out for every run while the store is down. Errors that say that the
            request is wrong do not count: the store has answered.
    """
    outcomes: dict[str, Outcome] = {}
    waiting = {change.key: change for change in changes}
    while waiting:
        taken = in_a_row = 0
        for key in sorted(waiting, key=lambda key: key in refused):
            known = key in refused
            try:
                outcomes[key] = store.write(waiting[key])
            except Exception as error:
                refused[key] = error
                in_a_row += not known and not _is_answer(error)
                if in_a_row == MOST_REFUSED:
                    break
            else:
                in_a_row = 0
                taken += 1
                refused.pop(key, None)
                del waiting[key]
        if waiting and (not outcomes or (in_a_row == MOST_REFUSED and not taken)):
            raise refused[next(iter(waiting))]
        if in_a_row < MOST_REFUSED:
            break
    return list(outcomes.values())


def _is_answer(error: Exception) -> bool:
    """Return whether MLflow answered that the request is wrong (400 to 499)."""
    status = getattr(error, "get_http_status_code", None)
    return callable(status) and 400 <= int(status()) < 500
