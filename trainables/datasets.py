"""Data sets as decoded uint8 arrays.

Axes: N images, S pixels a side, 3 channels (RGB), K classes.
"""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainables.datacache import cached_images, locked
from trainables.errors import DataError, SpecError
from trainables.imagefolder import folder_source
from trainables.imageset import Contents, ImageSet, Source
from trainables.parquet import parquet_source
from trainables.parsing import check_key
from trainables.pixels import resize_image

__all__ = ["DatasetSpec", "ImageSet", "load_dataset", "resize_image"]

KINDS = ("digits", "cifar10", "parquet", "imagefolder")
DIGITS_SIZE = 16
CIFAR10_FOLDER = "cifar-10-batches-py"
BATCH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """Which images."""

    name: str = "digits"
    """`digits`, `cifar10`, `parquet` or `imagefolder`."""
    path: str | None = None
    """Folder of the data; `--data` overrides it."""
    image_size: int | None = None
    """Side in pixels that images are resized to; null keeps the data set's own."""

    def __post_init__(self) -> None:
        """Refuse unknown data sets and impossible sizes."""
        check_key(self.name, KINDS, where="dataset name")
        if self.image_size is not None and not 4 <= self.image_size <= 1024:
            raise SpecError(f"image_size must lie in [4, 1024] pixels, got {self.image_size}")


def load_dataset(spec: DatasetSpec, *, cache: Path | None = None) -> ImageSet:
    """Decode a data set, or map it from the cache of decoded images.

    Axes: images uint8 [N, S, S, 3], labels int64 [N]. `cache` is described at
    `trainables.datacache.cached_images`; `digits` needs none.

    - `digits`: scikit-learn's 1,797 handwritten digits. Values 0 … 16 become 0 … 255 and
      the 8×8 pixels are resized to 16×16 (or `image_size`) by Pillow's bilinear filter.
    - `cifar10`: torchvision's, in the folder `path`, else QUORUM_DATA, else ./data;
      downloaded on first use.
    - `parquet`: see `trainables.parquet.parquet_source`.
    - `imagefolder`: see `trainables.imagefolder.folder_source`.

    Raises:
        DataError: the data are missing, unreadable, or not a classification problem.
    """
    if spec.name == "digits":
        return _digits(spec.image_size or DIGITS_SIZE)
    source = _source(spec)
    return cached_images(source, image_size=spec.image_size, cache=cache)


def _source(spec: DatasetSpec) -> Source:
    if spec.name == "cifar10":
        folder = spec.path or os.environ.get("QUORUM_DATA") or "data"
        return _cifar10_source(Path(folder).expanduser())
    if spec.path is None:
        raise DataError(f"{spec.name} needs a folder: set dataset.path, or give --data")
    root = Path(spec.path).expanduser()
    try:
        return parquet_source(root) if spec.name == "parquet" else folder_source(root)
    except OSError as error:
        raise DataError(f"{root} cannot be listed: {error}") from None


def _digits(size: int) -> ImageSet:
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    shape, bilinear = (size, size), Image.Resampling.BILINEAR
    images = np.stack([np.asarray(Image.fromarray(i).resize(shape, bilinear)) for i in grey])
    return ImageSet(
        name="digits",
        images=np.repeat(images[..., None], 3, axis=3),
        labels=digits.target.astype(np.int64),
        class_names=tuple(str(name) for name in digits.target_names),
    )


def _cifar10_source(root: Path) -> Source:
    folder = root / CIFAR10_FOLDER
    if not folder.is_dir():
        _torchvision_parts(root)
    files = tuple(sorted(folder.glob("*batch*")))
    return Source(
        kind="cifar10",
        name="cifar10",
        root=root,
        files=files,
        read=lambda size: _cifar10(root, size or 32),
    )


def _torchvision_parts(root: Path) -> tuple[Any, Any]:
    """Train and test; torchvision downloads what is missing and checks what is there."""
    from torchvision.datasets import CIFAR10

    # A folder that is there already may be read-only.
    present = (root / CIFAR10_FOLDER).is_dir()
    try:
        with nullcontext() if present else locked(root / ".cifar10.lock"):
            train, test = (CIFAR10(root, train=part, download=True) for part in (True, False))
            return train, test
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"CIFAR-10 is not in {root} and cannot be downloaded ({error}); put the folder "
            f"{CIFAR10_FOLDER} there, or use the data set `parquet`"
        ) from None


def _cifar10(root: Path, size: int) -> Contents:
    train, test = _torchvision_parts(root)
    images = np.concatenate([train.data, test.data])
    chunks = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    return Contents(
        image_size=size,
        labels=np.array([*train.targets, *test.targets], np.int64),
        class_names=tuple(train.classes),
        is_test=np.arange(len(images)) >= len(train.data),
        batches=(chunk if size == 32 else _resized(chunk, size) for chunk in chunks),
    )


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    return np.stack([resize_image(Image.fromarray(image), size) for image in images])
