"""The MLflow mirror of a run: a view for people, rebuilt from the journal at any time.

The mirror works on a thread of its own and owes nobody anything: events go into a bounded
spool, every two seconds what came is written in batches, and whatever fails is made good by
folding the journal again, later or by `sync`. A sweep never waits for it or fails with it.

Cost, measured on two cores that other work kept busy: 7 s of CPU once (4 to import MLflow,
3 to create a sqlite store), then 60 ms a trial of 70 metrics (500 trials: 29 s); `handle`
takes 1 µs, 0.4 ms at worst (n = 5,909).
"""

import fcntl
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from common.errors import RunError
from journal.journal import read_events
from search.mlflow.client import error_summary, without_password
from search.mlflow.projection import Projection
from search.mlflow.store import Store
from trainables.records import RunFolder

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0
CLOSE_SECONDS = 15.0
RETRY_SECONDS = (5.0, 60.0)
"""The first wait after a failure, and the longest; each is twice the one before."""
CAPACITY = 20_000
"""Events in the spool; further ones are left to the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSummary:
    """What a sync found and did."""

    uri: str
    runs: int
    """Runs of the journal, the sweep's own included."""
    created: int
    """Of these, runs that MLflow did not have."""
    updated: int
    """Of these, runs that it had in part, or in another state."""

    def __str__(self) -> str:
        """One line for a person."""
        same = self.runs - self.created - self.updated
        return (
            f"{self.runs} runs in {self.uri}: {self.created} created, {self.updated} brought up "
            f"to date, {same} as they were"
        )


def tracking_uri(folder: RunFolder, uri: str | None = None) -> str:
    """Where a run is mirrored: `uri`, else MLFLOW_TRACKING_URI, else mlflow.db beside the run."""
    database = folder.root.resolve().parent / "mlflow.db"
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database}"


def sync(folder: RunFolder, uri: str | None = None) -> SyncSummary:
    """Bring the MLflow view of a run up to date with its journal; a second call adds nothing.

    Runs of trials that no process works on any more are closed as KILLED.

    Raises:
        RunError: no journal, a store that cannot be written, or a live process that mirrors
            the run itself.
    """
    uri = tracking_uri(folder, uri)
    projection = Projection()
    for event in read_events(folder.journal):
        projection.apply(event)
    projection.close()
    changes = projection.take()
    with _mirroring(folder):
        try:
            store = Store(uri, folder, projection)
            done = [store.write(change) for change in changes]
        except RunError:
            raise
        except Exception as error:
            raise RunError(
                f"MLflow at {without_password(uri)} cannot be written: {error_summary(error)}; the "
                "journal has everything, so sync again when it can be"
            ) from error
    return SyncSummary(
        uri=without_password(uri),
        runs=len(changes),
        created=done.count("created"),
        updated=done.count("updated"),
    )


class MlflowMirror:
    """Mirrors a run's events to MLflow as they come; `handle` neither blocks nor raises.

    Events must stand in the journal before they are handed over: it is what a mirror that
    fell behind catches up from, and what it starts from when a run is resumed.
    """

    def __init__(
        self,
        folder: RunFolder,
        uri: str | None = None,
        *,
        flush_seconds: float = FLUSH_SECONDS,
        capacity: int = CAPACITY,
    ) -> None:
        """Nothing is imported, opened or started before the first event."""
        self.uri = tracking_uri(folder, uri)
        self._folder = folder
        self._flush_seconds = flush_seconds
        self._capacity = capacity
        self._spool: deque[Mapping[str, Any]] = deque()
        self._projection = Projection()
        self._store: Store | None = None
        self._handed = 0
        self._written = 0
        """Of the events handed over, those that MLflow has."""
        self._behind = True
        """The journal has to be folded again; the spool does not hold all that is missing."""
        self._failures = 0
        """Since the store last answered."""
        self._retry_at = 0.0
        self._told = False
        self._alone = False
        self._guard = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def handle(self, event: Mapping[str, Any]) -> None:
        """Take a journalled event, to be written soon."""
        try:
            with self._guard:  # never held for longer than it takes to copy the spool
                self._handed += 1
                if len(self._spool) < self._capacity:
                    self._spool.append(event)
                else:
                    self._behind = True
                if self._thread is None and not self._closing.is_set():
                    self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
                    self._thread.start()
        except Exception:
            logger.warning("the MLflow mirror is off; `quorum sync` mends it", exc_info=True)

    @property
    def lagging(self) -> bool:
        """MLflow lacks something that was handed over."""
        return self._written < self._handed

    def close(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Write what is left, for `timeout` seconds at most; whether all of it arrived."""
        self._closing.set()
        if self._thread is not None:
            # Nobody should wait at the end for a store that does not answer.
            self._thread.join(min(timeout, 5.0) if self._failures else timeout)
        if self._thread is not None and (self._thread.is_alive() or self.lagging):
            logger.warning(
                "MLflow at %s lacks a part of this run; `quorum sync %s` brings it up to date",
                without_password(self.uri), self._folder.root,
            )  # fmt: skip
            return False
        return True

    def __enter__(self) -> "MlflowMirror":
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def _work(self) -> None:
        with ExitStack() as stack:
            while not self._closing.wait(self._flush_seconds):
                self._round(stack)
            self._round(stack, last=True)

    def _round(self, stack: ExitStack, *, last: bool = False) -> None:
        if self._failures and time.monotonic() < self._retry_at and not last:
            return
        try:
            if not self._alone:
                stack.enter_context(_mirroring(self._folder))
                self._alone = True
            handed = self._catch_up() if self._behind or self._store is None else self._drain()
            if last:
                self._projection.close()
            assert self._store is not None
            for change in self._projection.take():
                self._store.write(change)
            self._written = handed
        except Exception as error:
            self._failed(error)

    def _catch_up(self) -> int:
        """Start again from the journal, which has all that the spool has, and more."""
        with self._guard:
            handed = self._handed
            self._spool.clear()
            self._behind = False
        self._projection = Projection()
        for event in read_events(self._folder.journal):
            self._projection.apply(event)
        self._store = Store(self.uri, self._folder, self._projection)
        self._failures = 0
        return handed

    def _drain(self) -> int:
        with self._guard:
            handed, events = self._handed, list(self._spool)
            self._spool.clear()
        for event in events:
            self._projection.apply(event)
        return handed

    def _failed(self, error: Exception) -> None:
        first, longest = RETRY_SECONDS
        self._behind = True
        self._retry_at = time.monotonic() + min(longest, first * 2**self._failures)
        self._failures += 1
        if not self._told:
            self._told = True
            logger.warning(
                "MLflow at %s cannot be written (%s); the run goes on, and its view is mended "
                "later or by `quorum sync %s`",
                without_password(self.uri), error_summary(error), self._folder.root,
            )  # fmt: skip


@contextmanager
def _mirroring(folder: RunFolder) -> Iterator[None]:
    """Two writers would create every run twice, so one at a time."""
    lock = os.open(folder.root / "mlflow.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise RunError(
            f"{folder.root} is at work and mirrors itself; sync it when that has ended"
        ) from None
    except OSError:
        logger.debug("no locks on this file system", exc_info=True)
    try:
        yield
    finally:
        os.close(lock)
