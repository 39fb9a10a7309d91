"""The lock of a run's journal, which names its holder."""

import os
import socket
from pathlib import Path

from filelock import BaseFileLock, Timeout, lock_descriptor

from common.errors import RunError
from common.locks import NO_FLOCK, take_lock

WAIT_SECONDS = 0.1
"""Seconds that a writer retries: longer than `at_work` holds the lock to test it."""


def hold(journal: Path) -> BaseFileLock:
    """Take the lock beside a journal and write this process's name into it.

    Raises:
        RunError: another process, or another part of this one, holds it; the message names it.
    """
    path = _lock_of(journal)
    try:
        lock = take_lock(path, timeout=WAIT_SECONDS)
    except Timeout:
        raise RunError(
            f"{journal} is in use by {_name_in(path)}; wait for it, stop it, or choose another "
            "--name"
        ) from None
    path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
    return lock


def at_work(journal: str | Path) -> str | None:
    """Return who holds a journal, e.g. "process 17 on a-host"; None if no process does.

    The operating system releases the lock even if its holder is killed.
    """
    path = _lock_of(Path(journal))
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if lock_descriptor(file, blocking=False) else _name_in(path)
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        return _name_in(path) if path.with_name(f"{path.name}.held").exists() else None
    finally:
        os.close(file)


def _lock_of(journal: Path) -> Path:
    return journal.with_suffix(".lock")


def _name_in(path: Path) -> str:
    return path.read_text(errors="replace").strip() or "an unknown process"
