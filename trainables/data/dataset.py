"""Load a data set by name, path or user function, decoded and cached.

Axes: N images, S pixels a side, 3 channels (RGB), K classes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from common.errors import DataError, SpecError
from common.parsing import check_key
from common.plugins import is_import_path
from trainables.data.cache import cached_images, find_images, store_images, stored_images
from trainables.data.cifar10 import CIFAR10_FOLDER, cifar10_source
from trainables.data.decoding import DecodeOptions, Progress, Source
from trainables.data.digests import pixel_digests
from trainables.data.folder_tree import holds_images
from trainables.data.group_names import check_pattern
from trainables.data.image_set import ImageSet
from trainables.data.imagefolder import folder_source
from trainables.data.parquet import parquet_source
from trainables.data.parquet_files import find_parquet
from trainables.data.pixels import choose_image_size
from trainables.data.resizing import ResizeRequest, ResizeRule, choose_crop_size
from trainables.data.source_sizes import SourceSizes
from trainables.data.split_names import check_splits
from trainables.data.user_function import images_from_function

KINDS = ("digits", "cifar10", "images", "parquet", "imagefolder")
DIGITS_SIZE = 16
LARGEST_CROP_SIZE = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """The data set of a sweep and the options for decoding it."""

    name: str = "digits"
    """`digits`, `cifar10`, `images` (any folder), `parquet` or `imagefolder` (a folder of that
    layout), or the import path of a user function, `package.module:function`."""
    path: str | None = None
    """Folder of the data; `--data` overrides it."""
    image_size: int | None = None
    """Side in pixels that images are resized to; null chooses one from the data."""
    resize: ResizeRule = "crop"
    """The rule by which images become square, in training and in predictions: `crop` their centre,
    `squash` the whole image, or `pad` it with grey. See trainables/data/resizing.py."""
    crop_size: int | None = None
    """Side in pixels of larger copies from which random crops (`recipe.crop_scale`) are cut; 0 for
    none. Null stores copies of 1.25 × image_size where a recipe uses random crops."""
    skip_unreadable: bool = False
    """Skip images that cannot be read."""
    leave_out: tuple[str, ...] = ()
    """Classes to leave out."""
    labels: str | None = None
    """CSV file with the columns file,label[,split][,group], which labels the images of a folder
    instead of its sub-folders; a path below `path`, or below the working directory."""
    groups: str | None = None
    """Regular expression for the paths of images below the folder. Images with the same first
    capture group, or the same match if it has none, form a group, which stays in one split."""
    splits: dict[str, str | tuple[str, ...]] | None = None
    """Names of folders, of Parquet files or of values in `labels` for the predefined splits, e.g.
    {train: Training, test: [TestA, TestB]}. Other folders and files are left out; other values are
    an error. Null recognises the usual names."""

    def __post_init__(self) -> None:
        """Refuse unknown data sets and impossible sizes."""
        if not is_import_path(self.name):
            check_key(self.name, KINDS, where="dataset name")
        if self.image_size is not None and not 4 <= self.image_size <= 1024:
            raise SpecError(f"image_size must lie in [4, 1024] pixels, got {self.image_size}")
        if self.crop_size and not 4 <= self.crop_size <= LARGEST_CROP_SIZE:
            raise SpecError(
                f"crop_size must be 0 or lie in [4, {LARGEST_CROP_SIZE}] pixels, "
                f"got {self.crop_size}"
            )
        if self.splits is not None:
            check_splits(self.splits)
        if self.groups is not None:
            check_pattern(self.groups)


def load_dataset(
    spec: DatasetSpec,
    *,
    cache: Path | None = None,
    fingerprint: str | None = None,
    progress: Progress | None = None,
) -> ImageSet:
    """Decode a data set, or map it from the cache of decoded images.

    Axes: images uint8 [N, S, S, 3], labels int64 [N]. `cache` is described in
    `trainables.data.cache.cached_images`; `digits` does not use it. `fingerprint` identifies a
    set that another process on this machine has cached: it is mapped without calling a user
    function again and even if files have changed since. `progress` is called after every batch.

    - `digits`: scikit-learn's 1,797 handwritten digits. Values 0 … 16 become 0 … 255 and
      the 8×8 pixels are resized to 16×16 (or `image_size`) by Pillow's bilinear filter.
    - `cifar10`: see `trainables.data.cifar10.cifar10_source`, with the folder `path`, else
      QUORUM_DATA, else ./data.
    - `parquet`: see `trainables.data.parquet.parquet_source`.
    - `imagefolder`: see `trainables.data.imagefolder.folder_source`.
    - `images`: the folder `path` in the first layout that matches: CIFAR-10's batches, Parquet
      files named after a split, folders of images, other Parquet files. `digits` and `cifar10` with
      a `path` do the same, so that every sweep runs on every folder.
    - `package.module:function`: see `trainables.data.user_function.images_from_function`.

    Raises:
        DataError: the data are missing, unreadable, or not a classification problem.
    """
    asked = ResizeRequest(size=spec.image_size, rule=spec.resize, crop_size=spec.crop_size or 0)
    if not _consists_of_files(spec):
        _check_options(
            spec, ("leave_out", "labels", "groups", "splits"), needed="a data set of files"
        )
        if spec.name == "digits":
            return _digits(spec.image_size or DIGITS_SIZE)
        stored = stored_images(fingerprint, cache=cache, asked=asked) if fingerprint else None
        return stored or store_images(
            images_from_function(spec.name, spec.path, asked), cache=cache, asked=asked
        )
    loaded = find_images(fingerprint, cache=cache, asked=asked) if fingerprint else None
    if loaded is not None:
        return loaded
    source = _source(spec)
    options = DecodeOptions(
        resizing=asked.at(spec.image_size or _image_size(source, None)),
        skip_unreadable=spec.skip_unreadable,
        leave_out=spec.leave_out,
    )
    return cached_images(source, options, cache=cache, progress=progress)


def resolve_dataset(
    spec: DatasetSpec, *, affordable: int | None = None, crops: bool = False
) -> DatasetSpec:
    """Return the specification with the folder's layout and the sizes filled in.

    `affordable` is described in `trainables.data.pixels.choose_image_size`; `crops` tells whether
    a recipe uses random crops. Sizes that are set are kept. Nothing is decoded; CIFAR-10 may be
    downloaded.

    Raises:
        DataError: as in `load_dataset`, if the list of files already shows the problem.
    """
    if not _consists_of_files(spec):
        return spec
    source = _source(spec)
    image_size = spec.image_size or _image_size(source, affordable)
    crop_size = spec.crop_size
    if crop_size is None and crops:
        crop_size = _crop_size(source, image_size)
    return replace(
        spec,
        name=source.kind,
        path=spec.path if source.kind == "cifar10" else str(source.root),
        image_size=image_size,
        crop_size=crop_size,
    )


def _consists_of_files(spec: DatasetSpec) -> bool:
    return not is_import_path(spec.name) and (spec.name != "digits" or spec.path is not None)


def _image_size(source: Source, affordable: int | None) -> int:
    sides = source.short_sides()
    readable = [side for side in sides if side]
    if not readable:
        raise DataError(
            f"none of {len(sides)} images of {source.root} can be read, "
            f"e.g. {source.files[0].name}; replace them"
        )
    return choose_image_size(readable, affordable=affordable)


def _crop_size(source: Source, image_size: int) -> int:
    readable = [side for side in source.short_sides() if side]
    crop_size = choose_crop_size(image_size, int(np.median(readable)))
    # Copies of squares at the training size would equal the images.
    return 0 if source.square and crop_size == image_size else crop_size


def _source(spec: DatasetSpec) -> Source:
    if spec.path is None and spec.name != "cifar10":
        raise DataError(f"{spec.name} needs a folder: set dataset.path, or give --data")
    root = Path(spec.path or os.environ.get("QUORUM_DATA") or "data").expanduser()
    try:
        if spec.name == "parquet":
            _check_options(spec, ("labels", "groups"), needed="a folder of images")
            return parquet_source(root, splits=spec.splits or None)
        if spec.name == "imagefolder" or spec.labels is not None:
            return folder_source(root, labels=spec.labels, groups=spec.groups, splits=spec.splits)
        return _detect_source(root, spec)
    except OSError as error:
        raise DataError(f"{root} cannot be listed: {error}; check its permissions") from None


def _detect_source(root: Path, spec: DatasetSpec) -> Source:
    """Return a source for the layout that the folder has, whatever the data set's name."""
    if (root / CIFAR10_FOLDER).is_dir():
        _check_options(spec, ("labels", "groups", "splits"), needed="a folder of images")
        return cifar10_source(root)
    splits = spec.splits or None
    if find_parquet(root, splits, named=True) is not None:
        _check_options(spec, ("groups",), needed="a folder of images")
        return parquet_source(root, splits=splits)
    # The default folder, ./data, may hold data sets other than CIFAR-10.
    if spec.path is not None and root.is_dir() and holds_images(str(root)):
        return folder_source(root, groups=spec.groups, splits=spec.splits)
    if spec.path is not None and find_parquet(root, splits) is not None:
        return parquet_source(root, splits=splits)
    if spec.name == "cifar10":
        return cifar10_source(root)
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; give the folder of the images")
    raise DataError(
        f"{root} holds no data set: expected root/CLASS/* or root/{{train,test}}/CLASS/* with "
        f"images, train*.parquet (there or in its folder data), or {CIFAR10_FOLDER}"
    )


def _check_options(spec: DatasetSpec, names: Sequence[str], *, needed: str) -> None:
    """Refuse options that this kind of data set does not have."""
    for name in names:
        if getattr(spec, name):
            given = spec.path or spec.name
            raise SpecError(f"dataset.{name} needs {needed}, but {given} is not one")


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
        digests=pixel_digests(np.repeat(grey[..., None], 3, axis=3)),
        resized_from=SourceSizes.from_counts({(8, 8, "L"): len(grey)}),
    )
