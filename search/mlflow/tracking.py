"""The MLflow mirror of a run: a view for people, rebuilt from the journal at any time.

The mirror works on its own thread: every two seconds it reads the journal from where it
stopped and writes the news in batches. After a failure it starts again from the whole journal,
as `sync` does. A sweep never waits for it or fails with it.

Cost, measured on two cores that other work kept busy: 7 s of CPU once (4 to import MLflow,
3 to create a sqlite store), then 60 ms a trial of 70 metrics (500 trials: 29 s).
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from filelock import Timeout

from common.errors import RunError
from common.locks import take_lock
from journal.events import Event
from journal.journal import JournalReader, read_events
from search.mlflow.client import error_summary, without_password
from search.mlflow.projection import Projection
from search.mlflow.store import Store
from trainables.records import RunFolder

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0
CLOSE_SECONDS = 15.0
RETRY_SECONDS = (5.0, 60.0)
"""The first wait after a failure, and the longest; each is twice the one before."""


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
    """Mirrors a run's journal to MLflow as it grows; `handle` neither blocks nor raises."""

    def __init__(
        self,
        folder: RunFolder,
        uri: str | None = None,
        *,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        """Nothing is imported, opened or started before the first event."""
        self.uri = tracking_uri(folder, uri)
        self._folder = folder
        self._flush_seconds = flush_seconds
        self._reader = JournalReader(folder.journal)
        self._projection = Projection()
        self._store: Store | None = None
        self._handed = 0
        self._written = 0
        """Of the events handed over, those that MLflow has."""
        self._failures = 0
        """Since the store last answered."""
        self._retry_at = 0.0
        self._told = False
        self._alone = False
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def handle(self, event: Event) -> None:  # noqa: ARG002 (an observer's signature)
        """Note that the journal has one more event, to be written soon."""
        try:
            self._handed += 1
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
            handed = self._handed
            store = self._read()
            if last:
                self._projection.close()
            for change in self._projection.take():
                store.write(change)
            self._written = handed
        except Exception as error:
            self._failed(error)

    def _read(self) -> Store:
        """Read the journal's news; all of it after a failure, with a fresh store."""
        if self._store is None:
            self._reader = JournalReader(self._folder.journal)
            self._projection = Projection()
        for event in self._reader.read():
            self._projection.apply(event)
        if self._store is None:
            self._store = Store(self.uri, self._folder, self._projection)
            self._failures = 0
        return self._store

    def _failed(self, error: Exception) -> None:
        first, longest = RETRY_SECONDS
        self._store = None
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
    try:
        lock = take_lock(folder.root / "mlflow.lock", timeout=0)
    except Timeout:
        raise RunError(
            f"{folder.root} is at work and mirrors itself; sync it when that has ended"
        ) from None
    try:
        yield
    finally:
        lock.release()
