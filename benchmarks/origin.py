"""The origin of printed figures: commit, machine, versions and load, in one line."""

import os
import subprocess
from pathlib import Path

from common.provenance import machine_description

HERE = str(Path(__file__).parent)


def origin_line(*more: str) -> str:
    """Return the line; `more` are further facts, e.g. the data type."""
    machine = machine_description()
    facts = [
        f"commit {commit() or 'unknown'}",
        machine["processor"],
        f"{machine['cores']} cores",
        *machine["cpu_flags"],
        f"torch {machine['torch']}",
        *more,
        f"load {os.getloadavg()[0]:.1f}",
    ]
    return ", ".join(facts)


def commit() -> str:
    """Return the commit, with `-dirty` if files were changed; nothing outside a repository."""
    return output_of("git", "-C", HERE, "describe", "--always", "--dirty")


def output_of(*command: str) -> str:
    """Return what a command prints; nothing if it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
