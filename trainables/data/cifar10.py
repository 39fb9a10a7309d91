"""CIFAR-10 in torchvision's layout, downloaded if missing.

Axes: N images, S pixels a side.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.errors import DataError
from common.locks import locked
from trainables.data.decoding import Contents, Source
from trainables.data.digests import pixel_digests
from trainables.data.pixels import DecodedBatch, resize_image
from trainables.data.resizing import Resizing

CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_SIZE = 32
BATCH = 1024
NETWORK_SECONDS = 60.0
"""Time without a response from the server after which a download fails."""


def cifar10_source(root: Path, *, dataset_class: Any = None) -> Source:
    """Return CIFAR-10 in `root`; torchvision downloads missing files.

    The batches are pickles; torchvision opens them only if their MD5 sums are the published ones.
    `dataset_class` replaces `torchvision.datasets.CIFAR10`.

    Raises:
        DataError: the files are missing and cannot be downloaded.
    """
    folder = root / CIFAR10_FOLDER
    if not folder.is_dir():
        _torchvision_sets(root, dataset_class)
    files = tuple(sorted(folder.glob("*batch*")))
    return Source(
        kind="cifar10",
        name="cifar10",
        root=root,
        files=files,
        short_sides=lambda: [CIFAR10_SIZE],
        read=lambda resizing: _read(root, resizing, dataset_class),
        square=True,
    )


def _torchvision_sets(root: Path, dataset_class: Any) -> tuple[Any, Any]:
    """Return torchvision's train and test sets; torchvision checks their files."""
    if dataset_class is None:
        from torchvision import datasets

        dataset_class = datasets.CIFAR10
    # If the folder exists, create no lock beside it: its parent may be read-only.
    present = (root / CIFAR10_FOLDER).is_dir()
    try:
        with nullcontext() if present else locked(root / ".cifar10.lock"), _network_timeout():
            train, test = (dataset_class(root, train=part, download=True) for part in (True, False))
            return train, test
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"CIFAR-10 is not in {root} and cannot be downloaded from {dataset_class.url} "
            f"({error}); put cifar-10-python.tar.gz or its folder {CIFAR10_FOLDER} there, or "
            "give a folder with train*.parquet or with one folder per class as --data"
        ) from None


@contextmanager
def _network_timeout() -> Iterator[None]:
    """Set a time limit for sockets, because torchvision sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read(root: Path, resizing: Resizing, dataset_class: Any) -> Contents:
    train, test = _torchvision_sets(root, dataset_class)
    images = np.concatenate([train.data, test.data])
    chunks = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    return Contents(
        labels=np.array([*train.targets, *test.targets], np.int64),
        class_names=tuple(train.classes),
        is_test=np.arange(len(images)) >= len(train.data),
        batches=(_resized(chunk, resizing) for chunk in chunks),
    )


def _resized(images: np.ndarray, resizing: Resizing) -> DecodedBatch:
    crop_size = resizing.crop_size
    return DecodedBatch(
        images=_with_side(images, resizing.size),
        broken={},
        formats=[(CIFAR10_SIZE, CIFAR10_SIZE, "RGB")] * len(images),
        digests=pixel_digests(images),
        large=_with_side(images, crop_size) if crop_size else None,
        aspects=np.ones(len(images), np.float32) if crop_size else None,
    )


def _with_side(images: np.ndarray, side: int) -> np.ndarray:
    if side == CIFAR10_SIZE:
        return images
    return np.stack([resize_image(Image.fromarray(image), side) for image in images])
