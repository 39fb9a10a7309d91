"""Decoded images on disk: written once per content, then mapped into memory by everybody.

An entry is a folder named by the hash of what it was made from. It is filled under a lock
and renamed into place, so a reader sees all of it or nothing, and of several processes
that want it one decodes and the others wait. Entries are never deleted; any may be, at
any time, by hand.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from trainables.errors import DataError, RunError
from trainables.imageset import ImageSet, Source
from trainables.records import dump_json, read_array, read_json, write_array, write_bytes_atomically

SCHEMA = 1
"""Part of every key: to be raised when decoding or the layout of an entry changes."""

_DAMAGED = (OSError, ValueError, KeyError, TypeError, SyntaxError, TokenError)

log = logging.getLogger(__name__)


def cached_images(source: Source, *, image_size: int | None, cache: Path | None) -> ImageSet:
    """The decoded images of `source`, memory-mapped; decoded on the first call only.

    Entries lie in `cache`, else in the folder QUORUM_CACHE names, else in
    ~/.cache/quorum. A file of the source that is changed, added or removed makes another
    entry, and so does another image size.

    Raises:
        DataError: the images cannot be decoded, or the cache cannot be written or read.
    """
    root = cache or Path(os.environ.get("QUORUM_CACHE") or Path.home() / ".cache" / "quorum")
    entry = root / _key(source, image_size)
    try:
        if not entry.is_dir():
            with locked(root / f"{entry.name}.lock"):
                if not entry.is_dir():
                    _build(entry, source, image_size)
    except OSError as error:
        raise DataError(
            f"decoded images cannot be kept in {root}: {error}; "
            "set QUORUM_CACHE to a folder with room"
        ) from None
    return _load(entry, source)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, which is left behind; waits for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _key(source: Source, image_size: int | None) -> str:
    """The hash of where the files are, their sizes and their times of change."""
    about: list[Any] = [SCHEMA, source.kind, str(source.root.resolve()), image_size]
    for path in source.files:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}") from None
        name = path.relative_to(source.root).as_posix()
        about.append((name, status.st_size, status.st_mtime_ns))
    # A file name need not be valid UTF-8; ASCII JSON spells any.
    digest = hashlib.sha256(json.dumps(about).encode())
    return f"{source.kind}-{digest.hexdigest()[:16]}"


def _build(entry: Path, source: Source, image_size: int | None) -> None:
    """Decode into a folder beside `entry` and rename it. The caller holds the lock."""
    partial = entry.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    began = time.monotonic()
    try:
        _fill(partial, source, image_size)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(entry)
    log.info("decoded %s into %s in %.1f s", source.root, entry, time.monotonic() - began)


def _fill(folder: Path, source: Source, image_size: int | None) -> None:
    contents = source.read(image_size)
    size = contents.image_size
    shape = (len(contents.labels), size, size, 3)
    log.info("decoding %d images of %s to %d × %d pixels", shape[0], source.root, size, size)
    path = folder / "images.npy"
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as file:
        # A mapped file with holes on a full disk would end the process with SIGBUS.
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    start = 0
    for batch in contents.batches:
        images[start : start + len(batch)] = batch
        start += len(batch)
    if start != len(images):
        raise DataError(f"{source.root} gave {start} images for {len(images)} labels")
    images.flush()
    decoded = ImageSet(
        name=source.name,
        images=images,
        labels=contents.labels,
        class_names=contents.class_names,
        is_test=contents.is_test,
        groups=contents.groups,
    )
    write_array(folder / "labels.npy", decoded.labels)
    if decoded.is_test is not None:
        write_array(folder / "is_test.npy", decoded.is_test)
    about = {
        "class_names": decoded.class_names,
        "groups": decoded.groups,
        "has_test": decoded.is_test is not None,
        "fingerprint": decoded.fingerprint,
    }
    write_bytes_atomically(folder / "about.json", dump_json(about).encode())


def _load(entry: Path, source: Source) -> ImageSet:
    try:
        about = read_json(entry / "about.json")
        images = np.lib.format.open_memmap(entry / "images.npy", mode="r")
        return ImageSet(
            name=source.name,
            images=np.asarray(images),
            labels=read_array(entry / "labels.npy"),
            class_names=tuple(about["class_names"]),
            is_test=read_array(entry / "is_test.npy") if about["has_test"] else None,
            groups=None if about["groups"] is None else tuple(about["groups"]),
            fingerprint=about["fingerprint"],
        )
    except (*_DAMAGED, RunError) as error:
        raise DataError(f"the decoded images in {entry} are damaged; delete it ({error})") from None
