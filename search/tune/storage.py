"""The storage of checkpoints, and the results of trials in them.

Checkpoints are named by their path below the storage's root, so a run whose folder was moved
or copied finds them again. The root is a local folder or any URI that Tune accepts. Workers may
have their own way to it (see `search.tune.served_folder`).
"""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem
from ray.tune import Checkpoint

from common.errors import RunError, SpecError
from common.files import read_json
from common.uris import is_uri, require_no_credentials
from trainables.trial import RESULT_FILES, TRIAL_FILE

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Location:
    """A folder of a file system."""

    filesystem: FileSystem
    path: str

    def __truediv__(self, name: str) -> "Location":
        return Location(self.filesystem, f"{self.path}/{name}".rstrip("/"))

    @classmethod
    def of(cls, root: str | Path) -> "Location":
        """Return the location of a local folder or a URI.

        Raises:
            SpecError: the URI has credentials, an unknown scheme or an impossible option.
        """
        if not is_uri(root):
            return cls(LocalFileSystem(), str(Path(root).absolute()))
        require_no_credentials(str(root), where="storage")
        try:
            filesystem, path = FileSystem.from_uri(str(root))
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise SpecError(f"storage {str(root)!r} cannot be used: {error}") from None
        return cls(filesystem, path.rstrip("/"))


class Storage:
    """The folder where Tune keeps the checkpoints of one run."""

    def __init__(self, root: str | Path | Location, *, workers: Location | None = None) -> None:
        """Use `root`, a folder of no other run.

        `workers` is its location as workers reach it, if that differs.
        """
        self.here = root if isinstance(root, Location) else Location.of(root)
        """The root as this process reaches it."""
        self.workers = workers or self.here
        """The root as workers reach it."""

    def __str__(self) -> str:
        kind = self.here.filesystem.type_name
        return f"the folder {self.here.path}" if kind == "local" else f"{kind}://{self.here.path}"

    @property
    def advice(self) -> str:
        """The remedies if a node does not reach this storage."""
        if self.workers != self.here:
            return "check its network and disk, or remove the node; a new run may use --storage"
        return (
            "make it reachable from every node and use --resume, or start a new run with another "
            "--storage, or with none: then checkpoints travel through Ray"
        )

    @property
    def tune_options(self) -> dict[str, Any]:
        """The arguments that make `tune.run` use this storage."""
        if isinstance(self.workers.filesystem, LocalFileSystem):
            return {"storage_path": self.workers.path}
        return {
            "storage_path": self.workers.path,
            "storage_filesystem": self.workers.filesystem,
        }

    def checkpoint(self, path: str) -> Checkpoint:
        """Return the checkpoint of this name, for a worker to open."""
        place = self.workers / path
        return Checkpoint(place.path, place.filesystem)

    def name_of(self, path: str) -> str:
        """Return a checkpoint's name: its path below the root.

        `path` is its path in the workers' file system, as Tune reports it.
        """
        return str(PurePosixPath(path).relative_to(self.workers.path))

    def holds(self, path: str) -> bool:
        """Return whether a file or folder exists at `path`."""
        place = self.here / path
        found: bool = place.filesystem.get_file_info(place.path).type is not FileType.NotFound
        return found

    def remove(self, path: str) -> None:
        """Delete a folder or file; log it if that fails."""
        place = self.here / path
        try:
            found = place.filesystem.get_file_info(place.path).type
            if found is FileType.Directory:
                place.filesystem.delete_dir(place.path)
            elif found is not FileType.NotFound:
                place.filesystem.delete_file(place.path)
        except (OSError, pyarrow.ArrowException) as error:
            log.warning("%s could not be deleted: %s", place.path, error)

    def prune(self, keep: Iterable[str]) -> None:
        """Delete everything below the root except the folders SESSION/TRIAL in `keep`."""
        kept = set(keep)
        for session in self._inside(""):
            trials = self._inside(f"{session}/")
            for path in [session] if kept.isdisjoint(trials) else set(trials) - kept:
                self.remove(path)

    def results(self, path: str) -> tuple[dict[str, Any], dict[str, bytes]] | None:
        """Return a checkpoint's trial.json, and the trial's predictions and weights by file name.

        None if the checkpoint is missing or damaged.
        """
        try:
            return self._read(path)
        except (RunError, OSError, pyarrow.ArrowException) as error:
            log.warning("%s cannot be read: %s", (self.here / path).path, error)
            return None

    def _read(self, path: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        place = self.here / path
        with Checkpoint(place.path, place.filesystem).as_directory() as folder:
            about = read_json(Path(folder) / TRIAL_FILE)
            files = {name: (Path(folder) / name).read_bytes() for name in RESULT_FILES}
        for name, data in files.items():
            if about["sha256"].get(name) != hashlib.sha256(data).hexdigest():
                raise RunError(f"{name} does not match its checksum")
        return about, files

    def _inside(self, path: str) -> list[str]:
        place = self.here / path
        try:
            found = place.filesystem.get_file_info(FileSelector(place.path, allow_not_found=True))
        except (OSError, pyarrow.ArrowException) as error:
            log.warning("%s cannot be listed: %s", place.path, error)
            return []
        return [f"{path}{info.base_name}" for info in found]
