"""Tell image files from others: by suffix if Pillow knows it, else by their first bytes."""

import functools
import importlib
import importlib.util
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image

UNREAD = ("EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5")
"""Formats that Pillow recognises but does not decode by itself; EPS starts Ghostscript."""

BY_SUFFIX_ONLY = ("IM", "IPTC", "PCD", "TGA", "DIB", "GBR", "PCX")
"""Formats without distinctive first bytes: damaged files of other formats may look like them."""

WITHOUT_SUFFIX = ("SPIDER", "IMT", "MCIDAS")
"""Formats for which Pillow knows neither first bytes nor a suffix: they are tried last, and only
for names without the suffix of another image format. Folders are searched without them."""

PLUGINS = {"pillow_heif": "register_heif_opener"}
"""Packages that add formats to Pillow, used if they are installed, and their functions."""

FIXES = {
    "pip install pillow-heif": (".heic", ".heif", ".hif", ".heics"),
    "install a Pillow with AVIF support": (".avif", ".avifs"),
    "convert them to PNG or JPEG": (
        ".jxl", ".svg", ".svgz", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf",
        ".rw2", ".raf", ".eps", ".wmf", ".emf", ".jxr", ".wdp", ".dcm", ".xcf", ".djvu",
    ),
}  # fmt: skip
"""Remedies for images that cannot be read here, by suffix."""

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

FileKind = Literal["image", "unread", "other"]


class FileType(NamedTuple):
    """The kind of a file: a readable image, an unreadable kind of image, or not an image."""

    kind: FileKind
    name: str
    """The lower-case suffix, or the whole name if it has none, e.g. `README`."""


def file_type(path: str, *, special: bool = False) -> FileType:
    """Return whether a file is an image, from its suffix, or its content if that is unknown.

    A link to nothing counts as an image if its suffix says so. A `special` file, e.g. a pipe, does
    not, and is not opened.
    """
    name = path.rpartition(os.sep)[2]  # not pathlib, which is slow for millions of files
    stem, dot, end = name.rpartition(".")
    suffix = f".{end.lower()}" if dot and stem else ""
    if special:
        return FileType("other", suffix or name)
    if suffix in readable_suffixes():
        return FileType("image", suffix)
    kind = _sniffed(path)
    if kind == "other" and fix_of(suffix):
        kind = "unread"
    return FileType(kind, suffix or name)


def fix_of(suffix: str) -> str:
    """Return the remedy for an image that cannot be read, or an empty string if there is none."""
    return next((fix for fix, suffixes in FIXES.items() if suffix in suffixes), "")


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Return the formats that are read whatever a file's name, and load Pillow's plugins."""
    for package, register in PLUGINS.items():
        if importlib.util.find_spec(package) is not None:
            getattr(importlib.import_module(package), register)()
    Image.init()
    others = (*UNREAD, *BY_SUFFIX_ONLY, *WITHOUT_SUFFIX)
    return tuple(name for name in Image.OPEN if name not in others)


@functools.cache
def readable_suffixes() -> dict[str, str]:
    """Return the format of each suffix of an image that is read; suffixes are in lower case."""
    names = (*readable_formats(), *BY_SUFFIX_ONLY)
    return {
        suffix.lower(): name
        for suffix, name in Image.registered_extensions().items()
        if name in names
    }


def formats_of(path: Path | None) -> tuple[str, ...]:
    """Return the formats to try, in this order, for a file, or for bytes without a name."""
    formats = readable_formats()
    if path is None:
        return formats
    suffix = path.suffix.lower()
    own = readable_suffixes().get(suffix, "")
    if not own and not fix_of(suffix):
        return (*formats, *WITHOUT_SUFFIX)
    return (*formats, own) if own in BY_SUFFIX_ONLY else formats


class _Quiet:
    """Counts the uses of `quiet_pillow`, so that overlapping ones in threads end in any order."""

    def __init__(self) -> None:
        self._lock, self._uses = threading.Lock(), 0
        self._handler = logging.NullHandler()
        self._propagate = True

    def change(self, uses: int) -> None:
        """Add to the uses; the first one silences Pillow's loggers, the last one restores them."""
        logger = logging.getLogger("PIL")
        with self._lock:
            before, self._uses = self._uses, self._uses + uses
            if before == 0:
                self._propagate, logger.propagate = logger.propagate, False
                logger.addHandler(self._handler)
            elif self._uses == 0:
                logger.propagate = self._propagate
                logger.removeHandler(self._handler)


_QUIET = _Quiet()


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow, e.g. about large images: callers count what they cannot read.

    Python's warning filters are shared by all threads, so this belongs around a pool of threads,
    not into them.
    """
    _QUIET.change(1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        _QUIET.change(-1)


def _sniffed(path: str) -> FileKind:
    try:
        with quiet_pillow(), Image.open(path, formats=readable_formats()):
            return "image"
    except Image.DecompressionBombError:
        return "image"
    except Exception:  # a file of any kind can make a plugin fail in any way
        return "unread" if _is_heif(path) else "other"


def _is_heif(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS
