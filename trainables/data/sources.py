"""Data sets as decoded uint8 arrays.

Axes: N images, S pixels a side, 3 channels (RGB), K classes.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.errors import DataError, SpecError
from common.locks import locked
from common.parsing import check_key
from common.plugins import is_import_path
from trainables.data.cache import cached_images, images_of, keep_images, kept_images
from trainables.data.decoding import Decoding, Progress
from trainables.data.image_set import Contents, ImageSet, Source
from trainables.data.imagefolder import folder_source, holds_classes
from trainables.data.parquet import holds_parquet, parquet_source
from trainables.data.pixels import Decoded, choose_image_size, resize_image
from trainables.data.source_sizes import Originals
from trainables.data.user_function import own_images

__all__ = ["DatasetSpec", "ImageSet", "load_dataset", "resize_image", "resolve_dataset"]

KINDS = ("digits", "cifar10", "images", "parquet", "imagefolder")
DIGITS_SIZE = 16
CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_SIZE = 32
BATCH = 1024
NETWORK_SECONDS = 60.0
"""How long a server may stay silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """Which images."""

    name: str = "digits"
    """`digits`, `cifar10`, `images` (any folder), `parquet` or `imagefolder` (a folder of
    that layout), or the import path of a function of one's own, `package.module:function`."""
    path: str | None = None
    """Folder of the data; `--data` overrides it."""
    image_size: int | None = None
    """Side in pixels that images are resized to; null chooses one from the data."""
    skip_unreadable: bool = False
    """Go on without images that cannot be read."""
    leave_out: tuple[str, ...] = ()
    """Classes to go on without."""

    def __post_init__(self) -> None:
        """Refuse unknown data sets and impossible sizes."""
        if not is_import_path(self.name):
            check_key(self.name, KINDS, where="dataset name")
        if self.image_size is not None and not 4 <= self.image_size <= 1024:
            raise SpecError(f"image_size must lie in [4, 1024] pixels, got {self.image_size}")


def load_dataset(
    spec: DatasetSpec,
    *,
    cache: Path | None = None,
    fingerprint: str | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """Decode a data set, or map it from the cache of decoded images.

    Axes: images uint8 [N, S, S, 3], labels int64 [N]. `cache` is described at
    `trainables.data.cache.cached_images`; `digits` needs none. `fingerprint` is that of a
    set that another process here has loaded already: one's own function is not called
    again then, and files that have changed since do not matter. `progress` is told how far
    decoding is.

    - `digits`: scikit-learn's 1,797 handwritten digits. Values 0 … 16 become 0 … 255 and
      the 8×8 pixels are resized to 16×16 (or `image_size`) by Pillow's bilinear filter.
    - `cifar10`: torchvision's, in the folder `path`, else QUORUM_DATA, else ./data;
      downloaded on first use. Its batches are pickles: torchvision opens only those whose
      MD5 sums are the published ones.
    - `parquet`: see `trainables.data.parquet.parquet_source`.
    - `imagefolder`: see `trainables.data.imagefolder.folder_source`.
    - `images`: the folder `path`, as CIFAR-10's batches, `parquet` or `imagefolder`, the
      first of these that it holds. So too are `digits` and `cifar10` where they are given
      a `path`, so that every sweep runs on every folder.
    - `package.module:function`: see `trainables.data.user_function.own_images`.

    Raises:
        DataError: the data are missing, unreadable, or not a classification problem.
    """
    if not _of_files(spec):
        if spec.leave_out:
            raise SpecError(f"leave_out is for data sets of files, which {spec.name} is not")
        if spec.name == "digits":
            return _digits(spec.image_size or DIGITS_SIZE)
        kept = kept_images(fingerprint, cache=cache) if fingerprint else None
        return kept or keep_images(own_images(spec.name, spec.path, spec.image_size), cache=cache)
    kept = images_of(fingerprint, cache=cache) if fingerprint else None
    if kept is not None:
        return kept
    source = _source(spec)
    how = Decoding(
        image_size=spec.image_size or _image_size(source, None),
        skip_unreadable=spec.skip_unreadable,
        leave_out=spec.leave_out,
    )
    return cached_images(source, how, cache=cache, progress=progress)


def resolve_dataset(spec: DatasetSpec, *, affordable: int | None = None) -> DatasetSpec:
    """The specification with its choices made: what the folder holds, and the image size.

    `affordable` is described at `trainables.data.pixels.choose_image_size`. What is resolved
    already stays as it is. Nothing is decoded; CIFAR-10 may be downloaded.

    Raises:
        DataError: as `load_dataset`, where listing the data is enough to see it.
    """
    if not _of_files(spec):
        return spec  # nothing to be chosen, or only the function knows
    source = _source(spec)
    return replace(
        spec,
        name=source.kind,
        path=spec.path if source.kind == "cifar10" else str(source.root),
        image_size=spec.image_size or _image_size(source, affordable),
    )


def _of_files(spec: DatasetSpec) -> bool:
    return not is_import_path(spec.name) and (spec.name != "digits" or spec.path is not None)


def _image_size(source: Source, affordable: int | None) -> int:
    sides = source.short_sides()
    readable = [side for side in sides if side]
    if not readable:
        raise DataError(
            f"none of {len(sides)} images of {source.root} can be read, e.g. {source.files[0].name}"
        )
    return choose_image_size(readable, affordable=affordable)


def _source(spec: DatasetSpec) -> Source:
    if spec.path is None and spec.name != "cifar10":
        raise DataError(f"{spec.name} needs a folder: set dataset.path, or give --data")
    root = Path(spec.path or os.environ.get("QUORUM_DATA") or "data").expanduser()
    try:
        if spec.name == "parquet":
            return parquet_source(root)
        if spec.name == "imagefolder":
            return folder_source(root)
        return _source_found(root, spec)
    except OSError as error:
        raise DataError(f"{root} cannot be listed: {error}") from None


def _source_found(root: Path, spec: DatasetSpec) -> Source:
    """What the folder holds, whatever the data set is called."""
    if (root / CIFAR10_FOLDER).is_dir():
        return _cifar10_source(root)
    if holds_parquet(root):
        return parquet_source(root)
    # A folder that nobody has named, ./data, may hold other sets than CIFAR-10.
    if spec.path is not None and root.is_dir() and holds_classes(root):
        return folder_source(root)
    if spec.name == "cifar10":
        return _cifar10_source(root)
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; give the folder of the images")
    raise DataError(
        f"{root} holds no data set: expected root/CLASS/* or root/{{train,test}}/CLASS/* with "
        f"images, train*.parquet (there or in its folder data), or {CIFAR10_FOLDER}"
    )


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
        resized_from=Originals.of({(8, 8, "L"): len(grey)}),
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
        short_sides=lambda: [CIFAR10_SIZE],
        read=lambda size: _cifar10(root, size),
    )


def _torchvision_parts(root: Path) -> tuple[Any, Any]:
    """Train and test; torchvision downloads what is missing and checks what is there."""
    from torchvision.datasets import CIFAR10

    # A folder that is there already may be read-only.
    present = (root / CIFAR10_FOLDER).is_dir()
    try:
        with nullcontext() if present else locked(root / ".cifar10.lock"), _impatient():
            train, test = (CIFAR10(root, train=part, download=True) for part in (True, False))
            return train, test
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"CIFAR-10 is not in {root} and cannot be downloaded ({error}); put "
            f"cifar-10-python.tar.gz or its folder {CIFAR10_FOLDER} there, or name another "
            "folder by --data or QUORUM_DATA: one with train*.parquet or with a folder a "
            "class will do"
        ) from None


@contextmanager
def _impatient() -> Iterator[None]:
    """Give up on a server that does not answer; torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _cifar10(root: Path, size: int) -> Contents:
    train, test = _torchvision_parts(root)
    images = np.concatenate([train.data, test.data])
    chunks = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    return Contents(
        labels=np.array([*train.targets, *test.targets], np.int64),
        class_names=tuple(train.classes),
        is_test=np.arange(len(images)) >= len(train.data),
        batches=(_resized(chunk, size) for chunk in chunks),
    )


def _resized(images: np.ndarray, size: int) -> Decoded:
    original = (CIFAR10_SIZE, CIFAR10_SIZE, "RGB")
    if size != CIFAR10_SIZE:
        images = np.stack([resize_image(Image.fromarray(image), size) for image in images])
    return Decoded(images=images, broken={}, originals=[original] * len(images))
