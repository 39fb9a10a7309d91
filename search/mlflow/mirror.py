"""The MLflow mirror of a run: a view for people that can be rebuilt from the journal at any time.

The mirror has its own thread. Every two seconds it reads the journal from where it stopped and
writes what is new in batches. After a failure it starts again from the whole journal, as `sync`
does. A sweep never waits for it and never fails with it.

Cost on two busy cores: 7 s of CPU once (4 to import MLflow, 3 to create a sqlite store), then
60 ms per trial of 70 metrics (500 trials: 29 s).
"""

import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from urllib.parse import quote

from filelock import Timeout

from common.commands import command
from common.errors import RunError
from common.locks import take_lock
from journal.events import Event
from journal.journal import JournalReader, read_events
from search.mlflow.client import error_summary, without_password
from search.mlflow.projection import Projection
from search.mlflow.runs import SWEEP
from search.mlflow.store import Store
from search.mlflow.writing import Connect, Target, write_changes
from trainables.records import RunFolder

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0
"""Time between two writes."""
CLOSE_SECONDS = 15.0
"""Longest time that `close` waits for the last write."""
CLOSE_SECONDS_AFTER_FAILURE = 5.0
"""Longest time that `close` waits for an answer if the store did not answer last time."""
RETRY_SECONDS = (5.0, 60.0)
"""First and longest wait after a failure; each wait is twice the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSummary:
    """The result of a sync."""

    uri: str
    """Tracking URI, without a password."""
    runs: int
    """Runs that the journal describes, including the sweep's own."""
    created: int
    """Runs among them that MLflow did not have."""
    updated: int
    """Runs among them that MLflow had only in part, or with another status."""

    def __str__(self) -> str:
        """Return one line for people."""
        return (
            f"{self.runs} runs in {self.uri}: {self.created} created, {self.updated} updated, "
            f"{self.runs - self.created - self.updated} unchanged"
        )


def tracking_uri(folder: RunFolder, uri: str | None = None) -> str:
    """Return `uri`, else MLFLOW_TRACKING_URI, else that of mlflow.db beside the run."""
    database = str(folder.root.resolve().parent / "mlflow.db")
    # Characters that mean something in a URI are percent-encoded; SQLAlchemy decodes them.
    database = re.sub(r"%(?=[0-9a-fA-F]{2})|\?", lambda match: quote(match[0]), database)
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{database}"


def sync(folder: RunFolder, uri: str | None = None, *, connect: Connect = Store) -> SyncSummary:
    """Bring MLflow's view of a run up to date with its journal; a second call changes nothing.

    Runs of trials that no process works on any more get the status KILLED.

    Raises:
        RunError: there is no journal, the store cannot be written, or a running process mirrors
            the run already.
    """
    uri = tracking_uri(folder, uri)
    projection = Projection()
    for event in read_events(folder.journal):
        projection.apply(event)
    projection.close()
    changes = projection.take()
    refused: dict[str, Exception] = {}
    with _only_writer(folder):
        try:
            store = connect(uri, folder, projection)
            outcomes = write_changes(store, changes, refused)
        except RunError:
            raise
        except Exception as error:
            raise RunError(
                f"MLflow at {without_password(uri)} cannot be written ({error_summary(error)}); "
                "the journal has everything, so sync again once it can be"
            ) from error
    for key, reason in refused.items():
        raise RunError(
            f"MLflow at {without_password(uri)} refuses {len(refused)} of {len(changes)} runs, "
            f"first {_name_of(key)} ({error_summary(reason)}); the others are up to date"
        ) from reason
    return SyncSummary(
        uri=without_password(uri),
        runs=len(changes),
        created=outcomes.count("created"),
        updated=outcomes.count("updated"),
    )


class MlflowMirror:
    """Mirrors a run's journal to MLflow as it grows."""

    def __init__(
        self,
        folder: RunFolder,
        uri: str | None = None,
        *,
        flush_seconds: float = FLUSH_SECONDS,
        retry_seconds: tuple[float, float] = RETRY_SECONDS,
        patience: float = CLOSE_SECONDS_AFTER_FAILURE,
        connect: Connect = Store,
    ) -> None:
        """Import, open and start nothing before the first event."""
        self.uri = tracking_uri(folder, uri)
        self.failures = 0
        """Writes in a row that have failed."""
        self._folder = folder
        self._flush_seconds = flush_seconds
        self._retry_seconds = retry_seconds
        self._patience = patience
        self._connect = connect
        self._reader = JournalReader(folder.journal)
        self._projection = Projection()
        self._store: Target | None = None
        self._events = 0
        """Events that were journalled."""
        self._written = 0
        """Events that MLflow has."""
        self._retry_at = 0.0
        self._refused: dict[str, Exception] = {}
        """Runs that the store refused, with the reason; they wait for a new connection."""
        self._tries = 0
        """Reconnections for the sake of refused runs."""
        self._try_at = 0.0
        self._warned = False
        self._warned_of: set[str] = set()
        self._locked = False
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def handle(self, event: Event) -> None:  # noqa: ARG002 (an observer's signature)
        """Note that the journal has one more event; never block, never raise."""
        try:
            self._events += 1
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
                self._thread.start()
        except Exception:
            logger.warning(
                "the MLflow mirror is off; `%s` repairs it", self._sync_command, exc_info=True
            )

    @property
    def lagging(self) -> bool:
        """True while MLflow lacks an event."""
        return self._written < self._events or bool(self._refused)

    def close(self, timeout: float = CLOSE_SECONDS) -> bool:
        """Write the rest, for at most `timeout` seconds; return whether MLflow has everything."""
        self._closing.set()
        if self._thread is None:
            return True
        end = time.monotonic() + timeout
        if self.failures:
            self._thread.join(min(timeout, self._patience))
        # A store that answers again needs everything that it missed, so it gets the whole time.
        if not self.failures or self._store is not None:
            self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive() or self.lagging:
            logger.warning(
                "MLflow at %s lacks a part of this run; `%s` brings it up to date",
                without_password(self.uri), self._sync_command,
            )  # fmt: skip
            return False
        return True

    def __enter__(self) -> "MlflowMirror":
        """Return the mirror."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the mirror."""
        self.close()

    @property
    def _sync_command(self) -> str:
        return command("sync", self._folder.root)

    def _work(self) -> None:
        with ExitStack() as stack:
            while not self._closing.wait(self._flush_seconds):
                self._flush(stack)
            self._flush(stack, last=True)

    def _flush(self, stack: ExitStack, *, last: bool = False) -> None:
        if self.failures and time.monotonic() < self._retry_at and not last:
            return
        try:
            if not self._locked:
                stack.enter_context(_only_writer(self._folder))
                self._locked = True
            events = self._events
            if self._refused and (last or time.monotonic() >= self._try_at):
                self._store = None
            again = self._store is None
            store = self._read()
            if last:
                self._projection.close()
            changes = self._projection.take()
            # The changes of a refused run are incomplete until the whole journal is read again.
            outcomes = write_changes(
                store,
                [change for change in changes if again or change.key not in self._refused],
                self._refused,
            )
            self._note_refusals(again=again)
            for error in self._refused.values():
                if again and all(outcome == "same" for outcome in outcomes):
                    raise error
            self._written, self.failures = events, 0
        except Exception as error:
            self._note_failure(error)

    def _read(self) -> Target:
        """Read the new events; after a failure all of them, with a new connection."""
        if self._store is None:
            self._reader = JournalReader(self._folder.journal)
            self._projection = Projection()
        for event in self._reader.read():
            self._projection.apply(event)
        if self._store is None:
            self._store = self._connect(self.uri, self._folder, self._projection)
        return self._store

    def _wait(self, failures: int) -> float:
        first, longest = self._retry_seconds
        return float(min(longest, first * 2 ** min(failures, 30)))

    def _note_failure(self, error: Exception) -> None:
        self._store = None
        self._retry_at = time.monotonic() + self._wait(self.failures)
        self.failures += 1
        if not self._warned:
            self._warned = True
            logger.warning(
                "MLflow at %s cannot be written (%s); the run continues, and its view is repaired "
                "later or by `%s`",
                without_password(self.uri), error_summary(error), self._sync_command,
            )  # fmt: skip

    def _note_refusals(self, *, again: bool) -> None:
        self._tries = self._tries + again if self._refused else 0
        if again or not self._refused:
            self._try_at = time.monotonic() + self._wait(self._tries)
        for key in self._refused.keys() - self._warned_of:
            self._warned_of.add(key)
            logger.warning(
                "MLflow at %s refuses %s (%s); the other runs go on",
                without_password(self.uri), _name_of(key), error_summary(self._refused[key]),
            )  # fmt: skip


def _name_of(key: str) -> str:
    return "the sweep's run" if key == SWEEP else f"the run of {key}"


@contextmanager
def _only_writer(folder: RunFolder) -> Iterator[None]:
    """Hold the mirror's lock: two writers would create every run twice."""
    try:
        lock = take_lock(folder.root / "mlflow.lock", timeout=0)
    except Timeout:
        raise RunError(
            f"{folder.root} is mirrored by a running process; sync it once that has ended"
        ) from None
    try:
        yield
    finally:
        lock.release()
