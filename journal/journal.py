"""The run's append-only truth: one JSON object a line, one writer, each line fsynced.

A process can die at any byte. The last line may then be torn: without its newline, or not
JSON. Readers leave it out and the next writer cuts it off. Damage anywhere else is no
accident of a crash and is an error that names the line.

Appending costs 0.2 ms on an idle virtual disk and 2 ms on a busy one, fsync included
(medians of 2,000 epoch events), so every event is synced by itself.
"""

import fcntl
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from common.errors import RunError

Event = dict[str, Any]
Observer = Callable[[Event], None]
"""Who is told of an event once it is journalled."""


class Journal:
    """The journal of one run, held by its one writer until `close`."""

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open or create the journal, take its lock, and cut off a torn last line.

        `clock` gives the events' `time`, in unix seconds.

        Raises:
            RunError: another process holds the journal (the message says which), or it is
                damaged before its last line.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        self._guard = threading.Lock()
        self._lock = _acquire(self.path.with_suffix(".lock"), self.path)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._events, self._end = _parse(self.path.read_bytes(), self.path)
            os.ftruncate(self._file, self._end)
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def events(self) -> tuple[Event, ...]:
        """Every event so far, those of earlier processes first."""
        return tuple(self._events)

    def append(self, event: Mapping[str, Any]) -> Event:
        """Write one event and return it as written.

        `time` is added where it is missing; numbers that are not finite become null.

        Raises:
            RunError: the disk is full or fails; what was written before stays valid.
        """
        with self._guard:
            written: Event = _plain({**event, "time": event.get("time", self._clock())})
            self._write(_encode(written))
            self._events.append(written)
            return written

    def close(self) -> None:
        """Let go of the journal; a second call does nothing."""
        if self._lock >= 0:
            os.close(self._file)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        if self._lock < 0:
            raise RunError(f"{self.path} is closed")
        try:
            done = 0
            while done < len(line):
                done += os.pwrite(self._file, line[done:], self._end + done)
            os.fsync(self._file)
        except BaseException as error:
            # Half a line must not stand before the next one, whatever stopped us.
            os.ftruncate(self._file, self._end)
            if isinstance(error, OSError):
                raise RunError(
                    f"{self.path} cannot be written: {error.strerror}; "
                    "what it holds is whole: make room, then go on with --resume"
                ) from None
            raise
        self._end += len(line)


def at_work(path: str | Path) -> str | None:
    """Who holds a journal, e.g. "process 17 on a-host"; None if nobody works on the run.

    Asks the journal's lock, which the system lets go of however its holder ends.
    """
    try:
        lock = os.open(Path(path).with_suffix(".lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.pread(lock, 200, 0).decode(errors="replace").strip() or "an unknown process"
    finally:
        os.close(lock)
    return None


def read_events(path: str | Path) -> list[Event]:
    """The events of a journal, without a lock, while it may be growing.

    A torn last line is left out. Of repeated reports of one epoch (same trial and step),
    the first counts.

    Raises:
        RunError: no journal is there, or it is damaged before its last line.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    return _without_repeats(_parse(data, Path(path))[0])


def _parse(data: bytes, path: Path) -> tuple[list[Event], int]:
    """The events, and the length of the part of the file that they fill."""
    events: list[Event] = []
    end = 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        event = _decode(line)
        if event is None:
            if number == len(lines) - 1 and not lines[-1]:
                break
            raise RunError(f"{path} is damaged in line {number}: {line[:60]!r} is not an event")
        events.append(event)
        end += len(line) + 1
    return events, end


def _decode(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _encode(event: Event) -> bytes:
    text = json.dumps(event, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _without_repeats(events: list[Event]) -> list[Event]:
    seen: set[tuple[Any, Any]] = set()
    kept = []
    for event in events:
        if event["event"] == "epoch":
            key = (event.get("trial"), event.get("step"))
            if key in seen:
                continue
            seen.add(key)
        kept.append(event)
    return kept


def _acquire(path: Path, journal: Path) -> int:
    """Lock a file beside the journal, and sign it.

    flock rather than POSIX locks: those are lost as soon as the process closes any other
    descriptor of the file, which every reader does.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock_now(lock)
    except OSError:
        holder = os.pread(lock, 200, 0).decode(errors="replace").strip() or "an unknown process"
        os.close(lock)
        raise RunError(
            f"{journal} is in use by {holder}; wait for it, stop it, or choose another --name"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return lock


def _lock_now(lock: int) -> None:
    """Take the lock or fail; `at_work`, which looks for a moment, does not make it fail."""
    for wait in (0.02, 0.05, None):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if wait is None:
                raise
            time.sleep(wait)
        else:
            return
