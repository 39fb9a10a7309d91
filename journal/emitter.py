"""Write events to the journal first, then pass them to the observers."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from common.failures import one_line
from journal.events import Event, ObserverFailed
from journal.journal import Journal
from journal.state import RunState

log = logging.getLogger(__name__)

Observer = Callable[[Event], None]
"""Called with every event once it is journalled."""


class Emitter:
    """Journals events and passes them on. A failing observer does not stop the run."""

    def __init__(self, journal: Journal, observers: Sequence[Observer] = ()) -> None:
        """`observers` are called in this order."""
        self.journal = journal
        self._observers = list(observers)
        self._failed: list[Observer] = []
        """Observers whose failure is journalled."""

    @property
    def state(self) -> RunState:
        """The run's state after the last event."""
        return self.journal.state

    def emit(self, event: Event) -> None:
        """Journal an event, then call the observers with it.

        Raises:
            OutOfOrderError: the event cannot follow the earlier ones; nothing was written.
            RunError: the journal cannot be written.
        """
        written = self.journal.append(event)
        for observer, error in notify(tuple(self._observers), written):
            if observer not in self._failed:
                self._failed.append(observer)
                self.journal.append(ObserverFailed(reason=one_line(error)))

    def sync(self) -> None:
        """Wait until every event so far is on disk; raises as `Journal.sync`."""
        self.journal.sync()

    @contextmanager
    def observed_by(self, observer: Observer) -> Iterator[None]:
        """Call `observer` too, until the end of the block."""
        self._observers.append(observer)
        try:
            yield
        finally:
            self._observers.remove(observer)


def notify(observers: Sequence[Observer], event: Event) -> list[tuple[Observer, Exception]]:
    """Call every observer with an event; return those that failed, with their errors."""
    failures = []
    for observer in observers:
        try:
            observer(event)
        except Exception as error:
            log.exception("an observer failed on %s", event.event)
            failures.append((observer, error))
    return failures
