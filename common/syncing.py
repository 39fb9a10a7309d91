"""Wait until files and the names in a folder are on disk."""

import os
from pathlib import Path


def make_folder(folder: Path) -> list[Path]:
    """Create a folder and those above it; return those that are new, whose parents need a sync."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return new


def sync_file(path: Path) -> None:
    """Wait until a file's content is on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make new and renamed files in a folder survive a power loss."""
    sync_file(folder)
