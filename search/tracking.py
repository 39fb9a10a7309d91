"""The MLflow mirror of a run: a view for people, rebuilt from the journal at any time.

The mirror works on a thread of its own and owes nobody anything: events go into a bounded
spool, every two seconds what came is written in batches, and whatever fails is made good by
folding the journal again, later or by `sync`. A sweep never waits for it or fails with it.

Cost of its first use, two cores: 4 s of CPU to import MLflow and 3 s to create a sqlite
store (1.5 s to open one); then 12 µs a metric, so 0.4 s for 33,000.
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

from search.journal import read_events
from search.mlflow_store import Store, in_short, without_password
from search.projection import Projection
from trainables.errors import RunError
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
        except Exception as error:
            raise RunError(
                f"MLflow at {without_password(uri)} cannot be written: {in_short(error)}; the "
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
        self._behind = True
        self._failures = 0
        self._retry_at = 0.0
        self._alone = False
        self._closing = threading.Event()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def handle(self, event: Mapping[str, Any]) -> None:
        """Take a journalled event, to be written soon."""
        try:
            if len(self._spool) >= self._capacity:
                self._behind = True
            else:
                self._spool.append(event)
            if self._thread is None:
                self._start()
        except Exception:
            self._behind = True
            logger.warning("the MLflow mirror cannot start; `quorum sync` mends it", exc_info=True)

    def _start(self) -> None:
        with self._guard:
            if self._thread is None and not self._closing.is_set():
                thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
                thread.start()
                self._thread = thread

    @property
    def lagging(self) -> bool:
        """MLflow lacks something that was handed over."""
        return self._thread is not None and (self._behind or bool(self._spool))

    def close(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Write what is left, for `timeout` seconds at most; whether all of it arrived."""
        self._closing.set()
        if self._thread is None:
            return True
        # Nobody should wait at the end for a server that has not answered so far.
        self._thread.join(min(timeout, 5.0) if self._failures else timeout)
        if self._thread.is_alive() or self.lagging:
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
        if self._behind and time.monotonic() < self._retry_at and not last:
            return
        try:
            if not self._alone:
                stack.enter_context(_mirroring(self._folder))
                self._alone = True
            if self._behind or self._store is None:
                self._catch_up()
            self._drain()
            if last:
                self._projection.close()
            assert self._store is not None
            for change in self._projection.take():
                self._store.write(change)
            self._failures = 0
        except Exception as error:
            self._failed(error)

    def _catch_up(self) -> None:
        """Start again from the journal, which has all that the spool has, and more."""
        self._spool.clear()
        self._behind = False
        self._projection = Projection()
        for event in read_events(self._folder.journal):
            self._projection.apply(event)
        self._store = Store(self.uri, self._folder, self._projection)

    def _drain(self) -> None:
        while self._spool:
            self._projection.apply(self._spool.popleft())

    def _failed(self, error: Exception) -> None:
        self._behind = True
        first, longest = RETRY_SECONDS
        self._retry_at = time.monotonic() + min(longest, first * 2**self._failures)
        self._failures += 1
        if self._failures == 1:
            logger.warning(
                "MLflow at %s cannot be written (%s); the run goes on, and its view is mended "
                "later or by `quorum sync %s`",
                without_password(self.uri), in_short(error), self._folder.root,
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
