"""Describe failures in one line."""

import errno
import os
import re
from pathlib import Path

from common.errors import QuorumError, RunError

MAX_CHARACTERS = 300
"""Longest reason, in characters."""


def reason_of(traceback: str) -> str:
    """Return the line that names the exception: the last of Ray's traceback, else the first."""
    lines = [line.strip() for line in _ANSI.sub("", traceback).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_PEAK_MEMORY)]
    if not lines:
        return "no reason given"
    return (lines[-1] if "ray::" in lines[0] else lines[0])[:MAX_CHARACTERS]


def note_peak_memory(error: BaseException, peak_bytes: int) -> None:
    """Note the peak memory of a training on the error that ended it, for its traceback."""
    error.add_note(f"{_PEAK_MEMORY} {peak_bytes} bytes")


def noted_peak_memory(traceback: str) -> int | None:
    """Return the peak memory, in bytes, that was noted on an error; None if none was."""
    found = re.findall(rf"{_PEAK_MEMORY} (\d+) bytes", traceback)
    return int(found[-1]) if found else None


def says_out_of_memory(text: str) -> bool:
    """Return whether an error's text or traceback says that an allocation failed.

    torch raises OutOfMemoryError for a GPU and a plain RuntimeError for the CPU, which is known by
    its message only. False for a worker that Ray killed (`says_node_out_of_memory`).
    """
    return any(sign in text.lower() for sign in _OUT_OF_MEMORY) and not says_node_out_of_memory(
        text
    )


def says_node_out_of_memory(text: str) -> bool:
    """Return whether an error's text or traceback says that Ray's memory monitor killed a worker.

    The monitor acts on the memory of the whole machine, which all trials on it and other programs
    share, so the killed trial is not necessarily the one that needs too much.
    """
    return any(sign in text.lower() for sign in _NODE_OUT_OF_MEMORY)


def lacked_memory(text: str) -> bool:
    """Return whether memory ran out, in an allocation or on the whole machine."""
    return says_out_of_memory(text) or says_node_out_of_memory(text)


def one_line(error: Exception) -> str:
    """Return an exception's type and the first line of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:MAX_CHARACTERS]


def unwritable(folder: Path, error: OSError) -> RunError:
    """Return the error for a run folder that cannot be written."""
    return RunError(
        f"{folder}: {error}; finished work is safe: fix the disk, then continue with --resume"
    )


def users_mistake(error: BaseException) -> str | None:
    """Return one line for an error that the user can fix; None for a bug of ours."""
    if isinstance(error, QuorumError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = error.filename or "the run"
        return f"no space left on the disk of {place}; free some space, then continue with --resume"
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}"
    if isinstance(error, OSError) and error.errno in _UNUSABLE_PATHS and error.filename:
        return f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}; give another path"
    return None


_UNUSABLE_PATHS = frozenset(
    {
        errno.ENOTDIR,
        errno.EEXIST,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EROFS,
        errno.EILSEQ,
    }
)
"""A file where a folder should be, or the reverse; a path that the file system refuses."""

_PEAK_MEMORY = "peak memory of the training:"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_OUT_OF_MEMORY = (
    "memoryerror",
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
)
_NODE_OUT_OF_MEMORY = ("node running low on memory", "ray.exceptions.outofmemoryerror")
"""The monitor's message, and the exception that carries it. torch's error in a Ray worker is called
`ray.exceptions.RayTaskError(OutOfMemoryError)`."""
