"""Keep features in files, for later worker processes of a sweep on the same machine.

Ray starts a new process for every distinct request of resources, and trials of a sweep differ in
the memory that they request. Without files, each process would compute the features of a head
again: nine minutes for 42,500 images of 96 px on one core.

A file is named by a digest of all that its features depend on, is written once, under a lock, and
is checked when it is read. A folder belongs to one sweep, which deletes it at its end.
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from common.locks import locked

SHARE_OF_FREE_DISK = 0.25
"""Largest share of the free disk space that a file may take."""

STALE_SECONDS = 2 * 86_400.0
"""Age after which the folder of another sweep is deleted: its process was killed."""

_NAME = "features"

log = logging.getLogger(__name__)


class FeatureFiles:
    """The files of one sweep on one machine."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made when it is first needed."""
        self._folder = folder

    def get(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return the features in the file of `key`, or compute them and write the file.

        Other processes that need the same features wait meanwhile. Where files cannot be written,
        e.g. for want of disk space, the features are only computed.
        """
        path = self._folder / f"{key}.safetensors"
        with self._alone(path):
            features = _read(path)
            if features is None:
                features = compute()
                _write(path, features)
            return features

    @contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """Hold the lock of a file, if there can be one."""
        try:
            if not self._folder.is_dir():
                self._folder.mkdir(parents=True, exist_ok=True)
                delete_stale(self._folder.parent)
            lock = locked(path.with_suffix(".lock"))
            lock.__enter__()
        except OSError as error:
            log.warning("features are not kept for other processes: %s", error)
            yield
            return
        try:
            yield
        finally:
            lock.__exit__(None, None, None)


def delete_stale(folder: Path, *, now: Callable[[], float] = time.time) -> None:
    """Delete the folders in `folder` that no sweep has written to for STALE_SECONDS."""
    for each in folder.iterdir():
        try:
            if now() - each.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(each, ignore_errors=True)
        except OSError:  # another process was faster
            continue


def _read(path: Path) -> Tensor | None:
    """Return the features in a file, mapped into memory; None if there are none or it is damaged.

    A file that was being written when the power failed may hold anything.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            features: Tensor = file.get_tensor(_NAME)
        if about["sha256"] == _digest(features):
            return features.to(about["device"])
        reason = "its checksum differs"
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error)
    log.warning("%s is damaged (%s): the features are computed again", path, reason)
    return None


def _write(path: Path, features: Tensor) -> None:
    """Write features to a file, unless the disk is too full."""
    values = features.detach().cpu().contiguous()
    free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
    if values.nbytes > SHARE_OF_FREE_DISK * free:
        log.warning("features of %d bytes are not kept: %d bytes are free", values.nbytes, free)
        return
    part = path.with_suffix(".partial")
    try:
        about = {"sha256": _digest(values), "device": str(features.device)}
        save_file({_NAME: values}, part, metadata=about)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        log.warning("features are not kept for other processes: %s", error)
        part.unlink(missing_ok=True)


def _digest(values: Tensor) -> str:
    flat = values.reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()
