"""From Tune's storage to the run's folder: what a finished trial leaves behind.

Checkpoints are named by their path below the storage's root, so a run whose folder was
moved or copied finds them again. The root is a local folder or any URI that Tune takes.
"""

import logging
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pyarrow
from pyarrow.fs import FileSelector, FileSystem, FileType
from ray.tune import Checkpoint

from trainables.errors import RunError
from trainables.records import file_sha256, read_json, write_bytes_atomically
from trainables.trial import ABOUT, HANDED_OVER

log = logging.getLogger(__name__)


class Storage:
    """Where Tune keeps checkpoints."""

    def __init__(self, root: str | Path) -> None:
        """`root` is a local folder or a URI."""
        self.root = str(root) if "://" in str(root) else str(Path(root).absolute())

    def uri(self, path: str) -> str:
        """What a worker opens."""
        return f"{self.root}/{path}"

    def relative(self, checkpoint: Checkpoint) -> str:
        """A checkpoint's name: its path below the root."""
        base = Checkpoint(self.root).path
        return str(PurePosixPath(checkpoint.path).relative_to(base))

    def holds(self, path: str) -> bool:
        """Whether something stands at `path`."""
        filesystem, target = self._find(path)
        found: bool = filesystem.get_file_info(target).type is not FileType.NotFound
        return found

    def remove(self, path: str) -> None:
        """Delete a folder or file; what cannot be deleted is left and logged."""
        filesystem, target = self._find(path)
        try:
            found = filesystem.get_file_info(target).type
            if found is FileType.Directory:
                filesystem.delete_dir(target)
            elif found is not FileType.NotFound:
                filesystem.delete_file(target)
        except (OSError, pyarrow.ArrowException) as error:
            log.warning("%s is left behind: %s", self.uri(path), error)

    def prune(self, sessions: Iterable[str], keep: Iterable[str]) -> None:
        """Delete what stands in these folders of the root, except the folders in `keep`."""
        keep = set(keep)
        for session in sessions:
            filesystem, target = self._find(session)
            inside = filesystem.get_file_info(FileSelector(target, allow_not_found=True))
            names = [f"{session}/{info.base_name}" for info in inside]
            kept = keep.intersection(names)
            for name in set(names) - kept if kept else [session]:
                self.remove(name)

    def hand_over(self, path: str, target: Path) -> int:
        """Copy a trial's predictions and weights from a checkpoint to its folder.

        Each file is written whole or not at all; a second call replaces them. Returns the
        number of the net's parameters.

        Raises:
            RunError: the checkpoint is gone or damaged, or no rung was scored in it.
        """
        try:
            with Checkpoint(self.uri(path)).as_directory() as folder:
                about = read_json(Path(folder) / ABOUT)
                for name in HANDED_OVER:
                    _copy(Path(folder) / name, target / name, about["sha256"].get(name))
        except (OSError, pyarrow.ArrowException) as error:
            raise RunError(f"{self.uri(path)} cannot be read: {error}") from None
        return int(about["params"])

    def _find(self, path: str) -> tuple[FileSystem, str]:
        checkpoint = Checkpoint(self.uri(path))
        return checkpoint.filesystem, checkpoint.path


def _copy(source: Path, target: Path, checksum: str | None) -> None:
    if checksum is None:
        raise RunError(f"{source} is missing: no rung was scored in this checkpoint")
    if file_sha256(source) != checksum:
        raise RunError(f"{source} is damaged: its content does not match its checksum")
    write_bytes_atomically(target, source.read_bytes())
