"""Decoded images on disk: written once per content, then mapped into memory by everybody.

An entry is a folder named by the hash of what it was made from. It is filled under a lock
and renamed into place, so a reader sees all of it or nothing, and of several processes
that want it one decodes and the others wait. What a killed process left half done is
deleted and made again by the next. Entries are never deleted; any may be, at any time, by
hand.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from common.errors import DataError, RunError
from common.files import dump_json, read_array, read_json, write_array, write_bytes_atomically
from common.locks import locked
from trainables.data.decoding import Decoding, Progress, decode
from trainables.data.image_set import ImageSet, Source
from trainables.data.source_sizes import Originals

SCHEMA = 3
"""Part of every key: to be raised when decoding or the layout of an entry changes."""

SAMPLED = 64
"""Images by which a file is known again."""

_DAMAGED = (OSError, ValueError, KeyError, TypeError, SyntaxError, TokenError)

log = logging.getLogger(__name__)


def cached_images(
    source: Source, how: Decoding, *, cache: Path | None, progress: Progress | None = None
) -> ImageSet:
    """The decoded images of `source`, memory-mapped; decoded on the first call only.

    Entries lie in `cache`, else in the folder QUORUM_CACHE names, else in
    ~/.cache/quorum. A file of the source that is changed, added or removed makes another
    entry, and so does another `how`. `progress` is called after every batch.

    Raises:
        DataError: images cannot be decoded, the classes of test and train differ, or the
            cache cannot be written or read.
    """
    root = _root(cache)
    entry = root / _key(source, how)

    def fill(folder: Path) -> None:
        began = time.monotonic()
        log.info("decoding %s to %d × %d pixels", source.root, how.image_size, how.image_size)
        images = decode(source, how, partial(_new_array, folder), progress)
        _shorten(folder, len(images))
        _describe(folder, images)
        log.info("decoded %s into %s in %.1f s", source.root, entry, time.monotonic() - began)

    _build(entry, fill)
    return _load(entry)


def keep_images(images: ImageSet, *, cache: Path | None) -> ImageSet:
    """The same images, memory-mapped from the cache, where `kept_images` finds them.

    Raises:
        DataError: the cache cannot be written or read.
    """
    entry = _root(cache) / _kept(images.fingerprint)

    def fill(folder: Path) -> None:
        array = _new_array(folder, images.images.shape)
        rows = max(1, (1 << 24) // images.images[0].nbytes)
        for start in range(0, len(images), rows):
            array[start : start + rows] = images.images[start : start + rows]
        array.flush()
        _describe(folder, images)

    _build(entry, fill)
    return _load(entry)


def kept_images(fingerprint: str, *, cache: Path | None) -> ImageSet | None:
    """What `keep_images` has kept of this fingerprint here; None if it is not there."""
    entry = _root(cache) / _kept(fingerprint)
    return _load(entry) if entry.is_dir() else None


def images_of(fingerprint: str, *, cache: Path | None) -> ImageSet | None:
    """The decoded images of this fingerprint, whatever has become of their files since.

    An entry that cannot be read, an older version's for instance, is passed over.
    """
    for entry in entries_of(fingerprint, cache=cache):
        try:
            return _load(entry)
        except DataError as error:
            log.warning("%s", error)
    return None


def entries_of(fingerprint: str, *, cache: Path | None = None) -> list[Path]:
    """The entries with images of this fingerprint, at any image size; damaged ones are left out."""
    found = []
    for about in sorted(_root(cache).glob("*/about.json")):
        try:
            if read_json(about).get("fingerprint") == fingerprint:
                found.append(about.parent)
        except RunError:
            continue
    return found


def _root(cache: Path | None) -> Path:
    return cache or Path(os.environ.get("QUORUM_CACHE") or Path.home() / ".cache" / "quorum")


def _kept(fingerprint: str) -> str:
    return f"own-{SCHEMA}-{fingerprint.removeprefix('sha256:')}"


def _key(source: Source, how: Decoding) -> str:
    """The hash of where the files are, their sizes and their times of change."""
    about: list[Any] = [
        SCHEMA,
        source.kind,
        str(source.root.resolve()),
        [how.image_size, how.skip_unreadable, sorted(how.leave_out)],
    ]
    for path in source.files:
        name = path.relative_to(source.root).as_posix()
        try:
            status = path.stat()
            about.append((name, status.st_size, status.st_mtime_ns))
        except OSError:
            about.append((name, None, None))  # decoding will name it
    # A file name need not be valid UTF-8; ASCII JSON spells any.
    digest = hashlib.sha256(json.dumps(about).encode())
    return f"{source.kind}-{digest.hexdigest()[:16]}"


def _build(entry: Path, fill: Callable[[Path], None]) -> None:
    """Make an entry that is not there: fill a folder beside it, under a lock; rename it."""
    if entry.is_dir():
        return
    making = entry.with_suffix(".partial")
    try:
        with locked(entry.with_suffix(".lock")):
            if entry.is_dir():
                return
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir()
            try:
                fill(making)
            except BaseException:
                shutil.rmtree(making, ignore_errors=True)
                raise
            making.rename(entry)
    except OSError as error:
        raise DataError(
            f"decoded images cannot be kept in {entry.parent}: {error}; "
            "set QUORUM_CACHE to a folder with room"
        ) from None


def _new_array(folder: Path, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """images.npy of this shape, mapped for writing, with its place on the disk taken."""
    path = folder / "images.npy"
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as file:
        # A mapped file with holes on a full disk would end the process with SIGBUS.
        size = path.stat().st_size
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            error.strerror = f"{error.strerror} for {size / 1e9:.3g} GB of pixels"
            raise
    return images


def _shorten(folder: Path, rows: int) -> None:
    """Keep the first rows of images.npy: its header is written anew, its end cut off."""
    path = folder / "images.npy"
    images = np.lib.format.open_memmap(path, mode="r+")
    if rows == len(images):
        return
    about = np.lib.format.header_data_from_array_1_0(images)
    with path.open("r+b") as file:
        # NumPy pads headers so that another number of rows does not change their length.
        np.lib.format.write_array_header_1_0(file, {**about, "shape": (rows, *images.shape[1:])})
        file.truncate(file.tell() + rows * images[:1].nbytes)


def _describe(folder: Path, images: ImageSet) -> None:
    """All but the pixels."""
    write_array(folder / "labels.npy", images.labels)
    if images.is_test is not None:
        write_array(folder / "is_test.npy", images.is_test)
    about = {
        "name": images.name,
        "class_names": images.class_names,
        "groups": images.groups,
        "has_test": images.is_test is not None,
        "fingerprint": images.fingerprint,
        "skipped": images.skipped,
        "originals": images.originals.to_mapping(),
        "sample": _sample_digest(images.images),
    }
    write_bytes_atomically(folder / "about.json", dump_json(about).encode())


def _sample_digest(images: np.ndarray) -> str:
    """Of some images, evenly spaced: to hash all of a large set would take minutes."""
    which = np.linspace(0, len(images) - 1, SAMPLED).astype(np.int64)
    return hashlib.sha256(np.ascontiguousarray(images[which]).data).hexdigest()[:16]


def _load(entry: Path) -> ImageSet:
    try:
        about = read_json(entry / "about.json")
        images = np.lib.format.open_memmap(entry / "images.npy", mode="r")
        if about.get("sample", _sample_digest(images)) != _sample_digest(images):
            raise ValueError("images.npy holds other images")
        return ImageSet(
            name=about["name"],
            images=np.asarray(images),
            labels=read_array(entry / "labels.npy"),
            class_names=tuple(about["class_names"]),
            is_test=read_array(entry / "is_test.npy") if about["has_test"] else None,
            groups=None if about["groups"] is None else tuple(about["groups"]),
            fingerprint=about["fingerprint"],
            skipped=tuple(about["skipped"]),
            resized_from=Originals.from_mapping(about["originals"]),
        )
    except (*_DAMAGED, RunError) as error:
        raise DataError(f"the decoded images in {entry} are damaged; delete it ({error})") from None
