"""Block a test's processes from reaching other machines, and list their attempts."""

import os
from pathlib import Path

from common.telemetry import TELEMETRY_OFF

GUARD = Path(__file__).parent / "guard"


def guarded(notes: Path) -> dict[str, str]:
    """Return an environment that guards Python's sockets and does not turn telemetry off.

    The guard writes to the folder `notes`; read it with `refused` and `commands`.
    """
    notes.mkdir(exist_ok=True)
    paths = [str(GUARD), *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: value for name, value in os.environ.items() if name not in TELEMETRY_OFF}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "QUORUM_SOCKET_NOTES": str(notes)}


def refused(notes: Path) -> list[str]:
    """Return every attempt to reach another machine."""
    path = notes / "refused"
    return path.read_text().splitlines() if path.exists() else []


def commands(notes: Path) -> list[str]:
    """Return the command lines of all guarded Python processes."""
    return [path.read_text() for path in notes.iterdir() if path.name != "refused"]
