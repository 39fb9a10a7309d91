"""The storage of checkpoints; copy results from it to a trial's folder.

Checkpoints are named by their path below the storage's root, so a run whose folder was moved
or copied finds them again. The root is a local folder or any URI that Tune accepts.
"""

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
from pyarrow.fs import FileSelector, FileSystem, FileType
from ray.tune import Checkpoint

from common.errors import RunError
from common.files import read_json, write_bytes_atomically
from trainables.records import WEIGHTS
from trainables.trial import RESULT_FILES, TRIAL_FILE

log = logging.getLogger(__name__)


class Storage:
    """The folder or URI where Tune keeps the checkpoints of one run."""

    def __init__(self, root: str | Path) -> None:
        """`root` is a local folder or a URI that no other run uses."""
        self.root = str(root) if "://" in str(root) else str(Path(root).absolute())

    def uri(self, path: str) -> str:
        """Return the address that a worker opens."""
        return f"{self.root}/{path}".rstrip("/")

    def name_of(self, path: str) -> str:
        """Return a checkpoint's name: its path below the root.

        `path` is its path in the storage's file system, as Tune reports it.
        """
        base = Checkpoint(self.root).path
        return str(PurePosixPath(path).relative_to(base))

    def holds(self, path: str) -> bool:
        """Return whether a file or folder exists at `path`."""
        filesystem, target = self._find(path)
        found: bool = filesystem.get_file_info(target).type is not FileType.NotFound
        return found

    def remove(self, path: str) -> None:
        """Delete a folder or file; log it if that fails."""
        filesystem, target = self._find(path)
        try:
            found = filesystem.get_file_info(target).type
            if found is FileType.Directory:
                filesystem.delete_dir(target)
            elif found is not FileType.NotFound:
                filesystem.delete_file(target)
        except (OSError, pyarrow.ArrowException) as error:
            log.warning("%s is left behind: %s", self.uri(path), error)

    def prune(self, keep: Iterable[str]) -> None:
        """Delete everything below the root except the folders SESSION/TRIAL in `keep`."""
        kept = set(keep)
        for session in self._inside(""):
            trials = self._inside(f"{session}/")
            for path in [session] if kept.isdisjoint(trials) else set(trials) - kept:
                self.remove(path)

    def hand_over(self, path: str, target: Path, *, weights: bool = True) -> dict[str, Any] | None:
        """Copy a trial's predictions and, with `weights`, its weights from a checkpoint.

        Return the content of trial.json; None if the checkpoint is missing or damaged.
        Each file is written whole or not at all; a second call replaces them.

        Raises:
            OSError: `target` cannot be written.
        """
        try:
            about, files = self._read(path)
        except (RunError, OSError, pyarrow.ArrowException) as error:
            log.warning("%s cannot be copied: %s", self.uri(path), error)
            return None
        for name, data in files.items():
            if weights or name != WEIGHTS:
                write_bytes_atomically(target / name, data)
        return about

    def _read(self, path: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        with Checkpoint(self.uri(path)).as_directory() as folder:
            about = read_json(Path(folder) / TRIAL_FILE)
            files = {name: (Path(folder) / name).read_bytes() for name in RESULT_FILES}
        for name, data in files.items():
            if about["sha256"].get(name) != hashlib.sha256(data).hexdigest():
                raise RunError(f"{name} does not match its checksum")
        return about, files

    def _inside(self, path: str) -> list[str]:
        filesystem, target = self._find(path)
        try:
            found = filesystem.get_file_info(FileSelector(target, allow_not_found=True))
        except (OSError, pyarrow.ArrowException) as error:
            log.warning("%s cannot be listed: %s", self.uri(path), error)
            return []
        return [f"{path}{info.base_name}" for info in found]

    def _find(self, path: str) -> tuple[FileSystem, str]:
        checkpoint = Checkpoint(self.uri(path))
        return checkpoint.filesystem, checkpoint.path
