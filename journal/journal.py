"""The journal's file: one JSON object a line, one writer.

**If a process is killed**, at any byte, every event that `append` returned is in the file. The last
line may be torn: without its newline, or not JSON. Readers leave it out and the next writer cuts it
off.

**If the machine loses power**, what remains is a prefix of the journal that holds every event up
to the last sync. Reports and state changes of trials (`GROUPED`) are synced together, at the latest
after SYNC_SECONDS or UNSYNCED_BYTES, by a thread, so that the loop that journals them need not wait
for the disk. `append` returns any other event once it is on disk, with all before it. Call `sync`
before an irreversible action that depends on earlier events: renaming a trial's record into place,
removing an old checkpoint. After a power loss, a resumed run trains the lost epochs again.

A file system may write later pages before earlier ones; the gaps read as zeros. So the journal
ends at the first line with a zero byte, if that is within the last UNSYNCED_BYTES. A crash cannot
damage earlier lines, so damage there is an error that names the line.
"""

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import BaseFileLock

from common.errors import RunError
from common.garbage import collection_paused
from common.syncing import make_folder, sync_folder
from journal.earlier import Upgrade
from journal.events import (
    CheckpointSaved,
    EpochEnded,
    Event,
    RungDecided,
    TrialEnded,
    TrialStarted,
    decode,
    encode,
)
from journal.lock import hold
from journal.state import RunState

GROUPED = (TrialStarted, EpochEnded, RungDecided, CheckpointSaved, TrialEnded)
"""Events that are synced together: a resumed run repeats what led to them."""

SYNC_SECONDS = 0.05
"""Longest time until the sync of such an event begins."""

UNSYNCED_BYTES = 1 << 16
"""Most bytes of the file that are not synced while `append` returns."""


class Journal:
    """The journal of one run, held by its one writer until `close`."""

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], float] = time.time,
        sync_seconds: float = SYNC_SECONDS,
    ) -> None:
        """Open or create the journal, take its lock, and cut off a torn end.

        `clock` gives the events' `time`, in unix seconds.

        Raises:
            RunError: another process holds the journal (the message names it), or it is
                damaged before its last line.
        """
        self.path = Path(path)
        made = make_folder(self.path.parent)
        self._clock = clock
        self._sync_seconds = sync_seconds
        self._guard = threading.Lock()
        """Held while an event is appended."""
        self._syncing = threading.Lock()
        """Held while the file is synced; events are appended meanwhile."""
        self._unsynced = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: OSError | None = None
        """A failed sync: then no one knows what is on disk, so nothing is written any more."""
        self._lock: BaseFileLock | None = hold(self.path)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            reader = JournalReader(self.path)
            self.state = reader.fold()
            """Folded from every event so far, including those of earlier processes."""
            self._end = reader.offset
            os.ftruncate(self._file, self._end)
            # The writer before may have been killed before it had synced.
            os.fsync(self._file)
            for folder in (self.path.parent, *(new.parent for new in made)):
                sync_folder(folder)
            self._synced = self._end
        except BaseException:
            self._lock.release()
            raise

    def append(self, event: Event) -> Event:
        """Write one event and return it as written; all but GROUPED ones are on disk then.

        An event without a time gets the current time, or the last event's if the clock went back.
        Numbers that are not finite become None.

        Raises:
            OutOfOrderError: the event cannot follow the earlier ones; nothing is written.
            RunError: the disk is full or fails; what was written before stays valid.
        """
        with self._guard:
            if event.time != event.time:  # NaN: not stamped yet
                event = replace(event, time=max(self._clock(), self.state.last_time))
            line = encode(event)
            event = decode(line)
            self.state.require(event)
            self._write(_to_bytes(line), grouped=isinstance(event, GROUPED))
            self.state.apply(event)
            return event

    def sync(self) -> None:
        """Wait until every event so far is on disk.

        Raises:
            RunError: the disk fails.
        """
        with self._syncing:
            self._raise_failure()
            end = self._end
            if end == self._synced:
                return
            try:
                _sync(self._file)
            except OSError as error:
                self._failure = error
                self._raise_failure()
            self._synced = end

    def close(self) -> None:
        """Sync and release the journal; a second call does nothing.

        Raises:
            RunError: the disk fails.
        """
        if self._lock is None:
            return
        self._closing.set()
        self._unsynced.set()
        if self._thread is not None:
            self._thread.join()
        lock, self._lock = self._lock, None
        try:
            self.sync()
        finally:
            os.close(self._file)
            lock.release()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, line: bytes, *, grouped: bool) -> None:
        if self._lock is None:
            raise RunError(f"{self.path} is closed")
        self._raise_failure()
        before = self._end
        if before + len(line) - self._synced > UNSYNCED_BYTES:
            self.sync()
        try:
            done = 0
            while done < len(line):
                done += os.pwrite(self._file, line[done:], before + done)
            self._end = before + len(line)
            if not grouped or len(line) > UNSYNCED_BYTES:
                self.sync()
        except BaseException as error:
            # The next line must not follow half of this one.
            with self._syncing:
                self._end, self._synced = before, min(before, self._synced)
                os.ftruncate(self._file, before)
            if isinstance(error, OSError):
                raise self._unwritable(error) from None
            raise
        if self._end > self._synced:
            self._sync_later()

    def _sync_later(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._sync_regularly, name="journal", daemon=True
            )
            self._thread.start()
        self._unsynced.set()

    def _sync_regularly(self) -> None:
        # `close` sets both events, perhaps just before the second is cleared here. A thread that
        # then waited for the second alone would never end, and `close` with it.
        while not self._closing.is_set():
            self._unsynced.wait()
            if self._closing.wait(self._sync_seconds):
                return
            self._unsynced.clear()
            try:
                self.sync()
            except RunError:
                return  # the next append raises it

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise RunError(
                f"{self.path} could not be synced: {self._failure.strerror}; the latest events may "
                "be lost: check the disk and its free space, then continue with --resume"
            ) from None

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(
            f"{self.path} cannot be written: {error.strerror}; "
            "the events so far are safe: make room, then continue with --resume"
        )


def _sync(descriptor: int) -> None:
    """Sync a file's content and size; not its times, where the system can leave them out."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


class JournalReader:
    """Reads a journal without its lock, from where the last read ended, while it grows."""

    def __init__(self, path: str | Path) -> None:
        """Read nothing yet."""
        self.path = Path(path)
        self.state = RunState()
        """Folded from the events read so far."""
        self.offset = 0
        """Bytes read: whole lines only."""
        self._upgrade = Upgrade()

    def read(self) -> list[Event]:
        """Return the events since the last read; a torn end is left out; raises as `follow`."""
        return list(self.follow())

    def fold(self) -> RunState:
        """Read to the end and return the state, without keeping the events; raises as `follow`."""
        with collection_paused():
            deque(self.follow(), maxlen=0)
        return self.state

    def follow(self) -> Iterator[Event]:
        """Yield the events since the last read, each folded; a torn end is left out.

        Raises:
            RunError: the journal is missing, damaged before its last line, out of order, or
                written by a version that this one cannot read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read()
                size = file.tell()
        except OSError as error:
            raise RunError(f"{self.path} cannot be read: {error.strerror}") from None
        lines = data.split(b"\n")
        for place, line in enumerate(lines[:-1]):
            mapping = _from_bytes(line)
            if mapping is None:
                if place == len(lines) - 2 and not lines[-1]:
                    break
                if b"\0" in line and size - self.offset <= UNSYNCED_BYTES:
                    break  # a power loss
                raise RunError(
                    f"{self.path} is damaged in line {self._number}: {line[:60]!r} is not an event"
                )
            event = self._fold(mapping)
            self.offset += len(line) + 1
            yield event

    @property
    def _number(self) -> int:
        """Number of the next line, from 1."""
        return self.state.count + 1

    def _fold(self, mapping: dict[str, Any]) -> Event:
        try:
            event = decode(self._upgrade(mapping))
            self.state.apply(event)
        except (ValueError, TypeError) as error:
            raise RunError(
                f"{self.path} cannot be read by this version: line {self._number}: {error}"
            ) from None
        return event


def read_events(path: str | Path) -> list[Event]:
    """Return the events of a journal, without its lock; raises as `JournalReader.follow`."""
    return JournalReader(path).read()


def read_state(path: str | Path) -> RunState:
    """Return the state of a run, folded from its journal; raises as `JournalReader.follow`."""
    return JournalReader(path).fold()


def changed_on_resume(path: str | Path) -> dict[str, Any]:
    """Return what resumes have changed: `data`, the folder of the images, and `disk_gb`.

    Only the lines of resumes are parsed, so that it is quick for any number of trials.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    resumes = (_from_bytes(line) for line in lines if b'"run_resumed"' in line)
    known = [event for event in resumes if event is not None]
    return {
        key: event[key]
        for event in known
        for key in ("data", "disk_gb")
        if event.get(key) is not None
    }


def _from_bytes(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _to_bytes(event: dict[str, Any]) -> bytes:
    text = json.dumps(event, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"
