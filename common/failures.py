"""Why something failed, in one line."""

import errno
import re
from pathlib import Path

from common.errors import QuorumError, RunError

MOST = 300
"""Characters of a reason."""


def reason_of(traceback: str) -> str:
    """The exception's own line: the last of a worker's traceback, the first of Ray's news."""
    lines = [line.strip() for line in _ANSI.sub("", traceback).splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return (lines[-1] if "ray::" in lines[0] else lines[0])[:MOST]


def one_line(error: Exception) -> str:
    """An exception's type and the first line of its message."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:MOST]


def unwritable(folder: Path, error: OSError) -> RunError:
    """What to tell a person whose disk is full or gone."""
    return RunError(f"{folder}: {error}; what it holds is whole: mend it, then go on with --resume")


def users_mistake(error: BaseException) -> str | None:
    """One line for an error that the user can mend; None for a defect of ours."""
    if isinstance(error, QuorumError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk of {error.filename or 'the run'}; free some and --resume"
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}"
    return None


_ANSI = re.compile(r"\x1b\[[0-9;]*m")
