"""Small data sets on disk, of random images identified by their seeds."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_set import ImageSet


def pixels(seed: int, size: int = 8) -> np.ndarray:
    """Return a random image, uint8 [size, size, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def png(seed: int, size: int = 8) -> bytes:
    """Return `pixels` as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, size)).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(root: Path, files: list[str], size: int = 8) -> None:
    """Write the image of seed i to the i-th path."""
    for i, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i, size))


def write_parquet(
    path: Path,
    seeds: list[int],
    labels: list[Any],
    *,
    image: str = "img",
    label: str = "label",
    raw: bool = False,
    metadata: dict[bytes, bytes] | None = None,
    sizes: list[int] | None = None,
    **columns: list[Any],
) -> None:
    """Write images and labels in row groups of three; `raw` images are bytes, not structs."""
    encoded = [png(s, size) for s, size in zip(seeds, sizes or [8] * len(seeds), strict=True)]
    images: list[Any] = encoded if raw else [{"bytes": e, "path": None} for e in encoded]
    kind = pa.binary() if raw else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(images, kind), label: labels, **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=3)


def load(kind: str, root: Path, cache: Path, image_size: int | None = None) -> ImageSet:
    """Load the data set of this kind in the folder `root`."""
    spec = DatasetSpec(name=kind, path=str(root), image_size=image_size)
    return load_dataset(spec, cache=cache)


def forbid_listing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make listing a folder fail as without permission, which root always has."""
    scandir: Callable[[Any], Any] = os.scandir

    def refuse(path: Any = ".") -> Any:
        if os.fspath(path) == str(folder):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
