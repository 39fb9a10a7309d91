"""Locks between processes: `flock`, or a marker file where the file system has none."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock

NO_FLOCK = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""Error codes of `flock` on file systems without it, e.g. some network and FUSE mounts."""

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, *, timeout: float = -1) -> Iterator[None]:
    """Hold the exclusive lock `path` for the length of the block; see `take_lock`."""
    lock = take_lock(path, timeout=timeout)
    try:
        yield
    finally:
        lock.release()


def take_lock(path: Path, *, timeout: float = -1) -> BaseFileLock:
    """Take the exclusive lock `path` and return it; call its `release` when done.

    Waits for at most `timeout` seconds, forever if negative. The file is left behind. A killed
    process loses its lock: the kernel drops a `flock`, and the next process on the same machine
    removes a dead process's marker.

    Raises:
        filelock.Timeout: another process still holds it.
        OSError: the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock: BaseFileLock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout)
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        # Not `path` itself: it exists by now, and an existing marker counts as held.
        marker = path.with_name(f"{path.name}.held")
        log.info("no flock in %s; locking with the file %s", path.parent, marker.name)
        lock = SoftFileLock(marker, thread_local=False)
        lock.acquire(timeout)
    return lock
