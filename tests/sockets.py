"""Whom the processes of a test talk to: tests/guard keeps them on this machine."""

import os
from pathlib import Path

from common.telemetry import OFF

GUARD = Path(__file__).parent / "guard"


def guarded(notes: Path) -> dict[str, str]:
    """An environment in which Python is guarded and telemetry is not yet off.

    `notes` is a folder; see `refused` and `commands`.
    """
    notes.mkdir(exist_ok=True)
    paths = [str(GUARD), *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: value for name, value in os.environ.items() if name not in OFF}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "QUORUM_SOCKET_NOTES": str(notes)}


def refused(notes: Path) -> list[str]:
    """Every attempt to reach another machine."""
    path = notes / "refused"
    return path.read_text().splitlines() if path.exists() else []


def commands(notes: Path) -> list[str]:
    """The command lines of all Python processes that were guarded."""
    return [path.read_text() for path in notes.iterdir() if path.name != "refused"]
