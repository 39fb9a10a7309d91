"""Read an array [M, ...] of a .npz file one entry of the first axis at a time.

An array that the archive holds uncompressed is read in place. A compressed one is unpacked into a
temporary file, which has no name and disappears when it is no longer used.
"""

import math
import os
import shutil
import struct
import tempfile
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from common.errors import PoolError
from common.formats import file_size

SPARE_BYTES = 1 << 26
"""Disk space that unpacking leaves free: 64 MiB."""

Array = np.ndarray[Any, Any]


class NpzMember:
    """An array in a .npz file; entries are read anew each time."""

    def __init__(self, path: Path, key: str) -> None:
        """Read the array's header.

        Raises:
            PoolError: the file is missing, damaged or not an archive, or has no such array.
        """
        self._path, self._key = path, key
        with _explained(path), zipfile.ZipFile(path) as archive:
            keys = {name.removesuffix(".npy"): name for name in archive.namelist()}
            if key not in keys:
                raise ValueError(f"the array {key!r} is missing; it holds {[*keys]}")
            self._info = archive.getinfo(keys[key])
            with archive.open(self._info) as stream:
                self.shape, self._fortran, self.dtype = _read_header(stream)
                self._data_offset = stream.tell()
            if self.dtype.hasobject:
                raise ValueError(f"{key!r} holds pickled objects")
            self._require_size(self._info.file_size - self._data_offset)
        self._stored = self._info.compress_type == zipfile.ZIP_STORED and not self._fortran
        self._descriptor: int | None = None
        self._start = 0

    def first_pass(self) -> Iterator[Array]:
        """Yield every entry in order, check the archive's checksum, and prepare `read`.

        One entry is in memory at a time; an array in Fortran order is loaded whole.

        Raises:
            PoolError: the array is damaged, or there is no disk space to unpack it.
        """
        with (
            _explained(self._path),
            zipfile.ZipFile(self._path) as archive,
            archive.open(self._info) as stream,
        ):
            if self._stored:
                yield from self._entries(stream)
                stream.read()  # zipfile compares the checksum at the end
                self._keep(os.open(self._path, os.O_RDONLY))
                self._start = self._offset_in_archive()
                return
            with self._open_spool() as spool:
                for entry in self._entries(stream):
                    self._spool(spool, entry)
                    yield entry
                stream.read()
                spool.flush()
                self._keep(os.dup(spool.fileno()))

    def read(self, entry: int) -> Array:
        """Return one entry of the first axis.

        Raises:
            PoolError: the file was truncated in the meantime.
        """
        assert self._descriptor is not None, "read before first_pass"
        array = np.empty(self.shape[1:], self.dtype)
        data = array.reshape(-1).view(np.uint8)
        position, done = self._start + entry * array.nbytes, 0
        while done < array.nbytes:
            count = os.preadv(self._descriptor, [data[done:].data], position + done)
            if count == 0:
                raise PoolError(f"{self._path} was changed while it was read; start again")
            done += count
        return array

    def _require_size(self, stored: int) -> None:
        """Refuse a header that does not fit the size of the data, before anything is allocated."""
        needed = math.prod(self.shape) * self.dtype.itemsize
        if min(self.shape, default=0) < 0 or needed != stored:
            raise ValueError(
                f"the header of {self._key!r} says shape {list(self.shape)} of {self.dtype}, which "
                f"does not fit its {stored} bytes"
            )

    def _entries(self, stream: IO[bytes]) -> Iterator[Array]:
        if self._fortran:
            yield from np.ascontiguousarray(np.lib.format.read_array(stream, allow_pickle=False))
            return
        stream.read(self._data_offset)
        for _ in range(self.shape[0]):
            array = np.empty(self.shape[1:], self.dtype)
            data, done = array.reshape(-1).view(np.uint8), 0
            while done < array.nbytes:
                chunk = stream.read(array.nbytes - done)
                if not chunk:
                    raise ValueError(f"the array {self._key!r} is cut off")
                data[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
                done += len(chunk)
            yield array

    def _open_spool(self) -> IO[bytes]:
        needed = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize + SPARE_BYTES
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise PoolError(
                f"{self._path} has to be unpacked, which takes {file_size(needed)}, but {folder} "
                f"has {file_size(free)} free; make room, set TMPDIR to a folder of another disk, "
                "or save the file uncompressed (np.savez)"
            )
        return tempfile.TemporaryFile(dir=folder)

    def _spool(self, spool: IO[bytes], entry: Array) -> None:
        try:
            spool.write(entry.reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise PoolError(
                f"{self._path} could not be unpacked into {tempfile.gettempdir()}: "
                f"{error.strerror}; set TMPDIR to a folder with more space"
            ) from None

    def _keep(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def _offset_in_archive(self) -> int:
        """Return where the array's data start; the local header's name and extra field vary."""
        assert self._descriptor is not None
        local: bytes = os.pread(self._descriptor, 30, self._info.header_offset)
        name, extra = struct.unpack("<HH", local[26:30])
        return int(self._info.header_offset + 30 + name + extra + self._data_offset)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"arrays of format {version} are not supported")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (PoolError, GeneratorExit):
        raise
    except Exception as error:  # damaged archives and headers raise a dozen unrelated types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PoolError(f"{path} cannot be read as .npz: {reason}") from None
