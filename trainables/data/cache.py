"""Cache decoded images on disk: written once per source, memory-mapped by every process.

An entry is a folder named by a hash of its source. It is filled under a lock and then renamed,
so readers see a whole entry or none, and one process decodes while the others wait. If a process
is killed, the next one deletes its unfinished entry and starts again. Entries are never deleted
automatically; users may delete any of them at any time.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np

from common.errors import DataError, RunError
from common.files import dump_json, read_array, read_json, write_array, write_bytes_atomically
from common.locks import locked
from common.parsing import to_mapping
from trainables.data.decoding import DecodeOptions, Progress, Source, decode
from trainables.data.grey_levels import GreyLevels
from trainables.data.image_set import ImageSet, LargeCopies
from trainables.data.notes import Note
from trainables.data.resizing import ANY_SIZE, ResizeRequest, ResizeRule
from trainables.data.source_sizes import SourceSizes

SCHEMA = 7
"""Part of every key: raise it when decoding or the layout of an entry changes."""

SAMPLED = 64
"""Number of images that are hashed to check that images.npy belongs to its entry."""

_DAMAGED = (OSError, ValueError, KeyError, TypeError, SyntaxError, TokenError)

log = logging.getLogger(__name__)


class Layout(NamedTuple):
    """The size and shape of decoded images, which their fingerprint does not depend on."""

    size: int
    """Side in pixels."""
    rule: ResizeRule
    large_size: int
    """Side of the larger copies for random crops; 0 if there are none."""


def layout_of(images: ImageSet) -> Layout:
    """Return the layout of decoded images."""
    large = 0 if images.large is None else images.large.side
    return Layout(images.image_size, images.resize, large)


def cached_images(
    source: Source,
    options: DecodeOptions,
    *,
    cache: Path | None,
    progress: Progress | None = None,
) -> ImageSet:
    """Return the decoded images of `source`, memory-mapped; decode them on the first call only.

    Entries are in the folder `cache` (default: the environment variable QUORUM_CACHE, then
    ~/.cache/quorum). A changed, added or removed file or other options make a new entry.
    `progress` is called after every batch.

    Raises:
        DataError: images cannot be decoded, train lacks a class of val or test, or the cache
            cannot be written or read.
    """
    entry = cache_root(cache) / _key(source, options)

    def fill(folder: Path) -> None:
        began = time.monotonic()
        size = options.resizing.size
        log.info("decoding %s to %d × %d pixels", source.root, size, size)
        images = decode(source, options, partial(_new_array, folder), progress)
        _shorten(folder / "images.npy", len(images))
        if options.resizing.crop_size and images.large is None:
            (folder / "large.npy").unlink()
        elif images.large is not None:
            _shorten(folder / "large.npy", len(images))
        how = options.resizing
        asked = ResizeRequest(size=how.size, rule=how.rule, crop_size=how.crop_size)
        _write_metadata(folder, images, asked)
        log.info("decoded %s into %s in %.1f s", source.root, entry, time.monotonic() - began)

    _build(entry, fill)
    images = _load(entry)
    return replace(images, notes=(*source.notes, *images.notes))


def store_images(
    images: ImageSet, *, cache: Path | None, asked: ResizeRequest = ANY_SIZE
) -> ImageSet:
    """Write images to the cache, where `stored_images` finds them; return them memory-mapped.

    `asked` is what their source was asked for.

    Raises:
        DataError: the cache cannot be written or read.
    """
    entry = cache_root(cache) / _stored_key(images.fingerprint, asked)

    def fill(folder: Path) -> None:
        _store_array(folder, "images", images.images)
        if images.large is not None:
            _store_array(folder, "large", images.large.pixels)
        _write_metadata(folder, images, asked)

    _build(entry, fill)
    return _load(entry)


def stored_images(
    fingerprint: str, *, cache: Path | None, asked: ResizeRequest = ANY_SIZE
) -> ImageSet | None:
    """Return what `store_images` wrote under this fingerprint and for `asked`, or None."""
    entry = cache_root(cache) / _stored_key(fingerprint, asked)
    return _load(entry) if entry.is_dir() else None


def find_images(
    fingerprint: str, *, cache: Path | None, asked: ResizeRequest = ANY_SIZE
) -> ImageSet | None:
    """Return the decoded images with this fingerprint, even if their files have changed since.

    They were resized as `asked`. Unreadable entries, e.g. of an older version, are skipped. None
    if there is no entry.
    """
    for entry in find_entries(fingerprint, cache=cache):
        images = _loaded(entry)
        if images is not None and asked.accepts(
            ResizeRequest(**read_json(entry / "about.json")["asked"])
        ):
            return images
    return None


def find_entry(fingerprint: str, layout: Layout, *, cache: Path | None) -> Path | None:
    """Return the folder of the decoded images with this fingerprint and layout, or None."""
    for entry in find_entries(fingerprint, cache=cache):
        images = _loaded(entry)
        if images is not None and layout_of(images) == layout:
            return entry
    return None


def received_images(
    fingerprint: str,
    layout: Layout,
    parts: Callable[[], Iterable[tuple[str, np.ndarray]]],
    *,
    cache: Path | None,
) -> ImageSet:
    """Return decoded images from the cache; write those of another machine on the first call.

    `parts` gives the bytes of that machine's entry, as `entry_parts` does. They are received once
    per cache, while other processes wait.

    Raises:
        DataError: the cache cannot be written, or the bytes are not those images.
    """
    known = find_entry(fingerprint, layout, cache=cache)
    if known is not None:
        return _load(known)
    entry = cache_root(cache) / (
        f"received-{SCHEMA}-{fingerprint.removeprefix('sha256:')}-"
        f"{layout.size}-{layout.rule}-{layout.large_size}"
    )

    def fill(folder: Path) -> None:
        for name, part in parts():
            with (folder / name).open("ab") as file:
                file.write(part.data)

    _build(entry, fill)
    images = _load(entry)
    if (images.fingerprint, layout_of(images)) != (fingerprint, layout):
        raise DataError(
            f"the images in {entry} have fingerprint {images.fingerprint} and {layout_of(images)}, "
            f"not {fingerprint} and {layout}; delete that folder"
        )
    return images


def entry_parts(entry: Path, *, most_bytes: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the files of an entry, each in parts in order: the file's name and its bytes."""
    for path in sorted(entry.iterdir()):
        size = path.stat().st_size
        for start in range(0, max(1, size), most_bytes):
            count = min(most_bytes, size - start)
            yield path.name, np.fromfile(path, dtype=np.uint8, offset=start, count=count)


def _loaded(entry: Path) -> ImageSet | None:
    """Return the images of an entry; None, with a warning, if it is damaged."""
    try:
        return _load(entry)
    except DataError as error:
        log.warning("%s", error)
        return None


def find_entries(fingerprint: str, *, cache: Path | None = None) -> list[Path]:
    """Return the entries with this fingerprint, at every size, whose about.json can be read."""
    entries = []
    for about in sorted(cache_root(cache).glob("*/about.json")):
        try:
            if read_json(about).get("fingerprint") == fingerprint:
                entries.append(about.parent)
        except RunError:
            continue
    return entries


def cache_root(cache: Path | None = None) -> Path:
    """Return the folder of our caches: `cache`, else $QUORUM_CACHE, else ~/.cache/quorum."""
    return cache or Path(os.environ.get("QUORUM_CACHE") or Path.home() / ".cache" / "quorum")


def _stored_key(fingerprint: str, asked: ResizeRequest) -> str:
    how = f"{asked.size or 'any'}-{asked.rule}-{asked.crop_size}"
    return f"own-{SCHEMA}-{fingerprint.removeprefix('sha256:')}-{how}"


def _key(source: Source, options: DecodeOptions) -> str:
    """Return a hash of the options and of the paths, sizes and modification times of the files."""
    about: list[Any] = [
        SCHEMA,
        source.kind,
        str(source.root.resolve()),
        [*to_mapping(options.resizing).values(), options.skip_unreadable],
        sorted(options.leave_out),
        source.annotations,
    ]
    for path in source.files:
        name = path.relative_to(source.root).as_posix()
        try:
            status = path.stat()
            about.append((name, status.st_size, status.st_mtime_ns))
        except OSError:
            about.append((name, None, None))  # decoding reports it
    # File names need not be valid UTF-8; ASCII JSON can hold any.
    digest = hashlib.sha256(json.dumps(about).encode())
    return f"{source.kind}-{digest.hexdigest()[:16]}"


def _build(entry: Path, fill: Callable[[Path], None]) -> None:
    """Make a missing entry: fill a folder beside it under a lock, then rename it."""
    if entry.is_dir():
        return
    partial_entry = entry.with_suffix(".partial")
    try:
        with locked(entry.with_suffix(".lock")):
            if entry.is_dir():
                return
            shutil.rmtree(partial_entry, ignore_errors=True)
            partial_entry.mkdir()
            try:
                fill(partial_entry)
            except BaseException:
                shutil.rmtree(partial_entry, ignore_errors=True)
                raise
            partial_entry.rename(entry)
    except OSError as error:
        raise DataError(
            f"decoded images cannot be written to {entry.parent}: {error}; "
            "set QUORUM_CACHE to a folder with space"
        ) from None


def _new_array(folder: Path, name: str, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Create NAME.npy of this shape, mapped for writing, with its disk space allocated."""
    path = folder / f"{name}.npy"
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as file:
        # Writing to a hole in a mapped file on a full disk kills the process with SIGBUS.
        size = path.stat().st_size
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            error.strerror = f"{error.strerror} for {size / 1e9:.3g} GB of pixels"
            raise
    return images


def _store_array(folder: Path, name: str, pixels: np.ndarray) -> None:
    """Write pixels to NAME.npy in chunks, because they may be mapped and not fit into memory."""
    array = _new_array(folder, name, pixels.shape)
    rows = max(1, (1 << 24) // pixels[0].nbytes)
    for start in range(0, len(pixels), rows):
        array[start : start + rows] = pixels[start : start + rows]
    array.flush()


def _shorten(path: Path, rows: int) -> None:
    """Shorten an array's file to its first rows: rewrite its header and truncate it."""
    images = np.lib.format.open_memmap(path, mode="r+")
    if rows == len(images):
        return
    about = np.lib.format.header_data_from_array_1_0(images)
    with path.open("r+b") as file:
        # NumPy pads headers, so the number of rows does not change their length.
        np.lib.format.write_array_header_1_0(file, {**about, "shape": (rows, *images.shape[1:])})
        file.truncate(file.tell() + rows * images[:1].nbytes)


def _write_metadata(folder: Path, images: ImageSet, asked: ResizeRequest) -> None:
    """Write everything but the pixels."""
    write_array(folder / "labels.npy", images.labels)
    for name in ("digests", "is_test", "is_val"):
        if getattr(images, name) is not None:
            write_array(folder / f"{name}.npy", getattr(images, name))
    if images.large is not None:
        write_array(folder / "aspects.npy", images.large.aspects)
    about = {
        "name": images.name,
        "class_names": images.class_names,
        "groups": images.groups,
        "has_test": images.is_test is not None,
        "has_val": images.is_val is not None,
        "has_large": images.large is not None,
        "resize": images.resize,
        "asked": to_mapping(asked),
        "fingerprint": images.fingerprint,
        "skipped": images.skipped,
        "grey_levels": images.grey_levels.to_mapping(),
        "notes": [note.to_mapping() for note in images.notes],
        "originals": images.source_sizes.to_mapping(),
        "sample": _sample_digest(images.images),
    }
    write_bytes_atomically(folder / "about.json", dump_json(about).encode())


def _sample_digest(images: np.ndarray) -> str:
    """Return a hash of evenly spaced images; hashing all of a large set would take minutes."""
    chosen = np.linspace(0, len(images) - 1, SAMPLED).astype(np.int64)
    return hashlib.sha256(np.ascontiguousarray(images[chosen]).data).hexdigest()[:16]


def _load(entry: Path) -> ImageSet:
    try:
        about = read_json(entry / "about.json")
        images = np.lib.format.open_memmap(entry / "images.npy", mode="r")
        if about.get("sample", _sample_digest(images)) != _sample_digest(images):
            raise ValueError("images.npy does not hold the images that about.json describes")
        return ImageSet(
            name=about["name"],
            images=np.asarray(images),
            labels=read_array(entry / "labels.npy"),
            class_names=tuple(about["class_names"]),
            is_test=read_array(entry / "is_test.npy") if about["has_test"] else None,
            is_val=read_array(entry / "is_val.npy") if about["has_val"] else None,
            digests=read_array(entry / "digests.npy"),
            groups=None if about["groups"] is None else tuple(about["groups"]),
            fingerprint=about["fingerprint"],
            skipped=tuple(about["skipped"]),
            grey_levels=GreyLevels.from_mapping(about["grey_levels"]),
            notes=tuple(Note.from_mapping(note) for note in about["notes"]),
            resized_from=SourceSizes.from_mapping(about["originals"]),
            resize=about["resize"],
            large=_load_large(entry) if about["has_large"] else None,
        )
    except (*_DAMAGED, RunError) as error:
        raise DataError(
            f"the decoded images in {entry} are damaged ({error}); delete that folder"
        ) from None


def _load_large(entry: Path) -> LargeCopies:
    pixels = np.lib.format.open_memmap(entry / "large.npy", mode="r")
    return LargeCopies(pixels=np.asarray(pixels), aspects=read_array(entry / "aspects.npy"))
