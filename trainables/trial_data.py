"""The images and splits of a trial, as its worker gets them: loaded once per process.

They come from shared memory, from a machine that serves them, or from this machine's cache:
see QuorumTrial's `config`.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, chdir, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import ray

from common.errors import DataError
from common.parsing import from_mapping
from trainables.data.cache import cache_root
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.records import TrialStart


def data_of_trial(config: Mapping[str, Any], start: TrialStart) -> tuple[ImageSet, Splits]:
    """Return the images, loaded once per process, and their splits.

    Raises:
        DataError: the images are not available, or they or the splits differ from the sweep's; the
            message names the machine.
    """
    splits: Splits = _fetched(config["splits"])
    cache = None if config["cache"] is None else Path(config["cache"])
    try:
        images = _images(config, start, cache)
    except DataError as error:
        raise DataError(f"{start.trial} on {os.uname().nodename}: {error}") from None
    for name, actual, expected in (
        ("fingerprint", images.fingerprint, start.data["fingerprint"]),
        ("image size", images.image_size, start.data.get("image_size") or images.image_size),
        ("split_id", splits.split_id, start.split_id),
    ):
        if actual != expected:
            raise DataError(
                f"{start.trial}: the data on {os.uname().nodename} have {name} {actual}, but the "
                f"sweep was started with {expected}; give every node the same data"
            )
    return images, splits


def features_folder(cache: Path | None, sweep: str) -> Path:
    """Return the folder of a sweep's features in this machine's cache."""
    return cache_root(cache) / "features" / sweep


def inside(folder: str) -> AbstractContextManager[None]:
    """Change to the folder in which the command was started, if this node has it.

    Relative paths are then the same as for the command.
    """
    return chdir(folder) if Path(folder).is_dir() else nullcontext()


def _images(config: Mapping[str, Any], start: TrialStart, cache: Path | None) -> ImageSet:
    source = config["images"]
    if source is None:
        spec = from_mapping(DatasetSpec, config["dataset"], where="dataset")
        return _mapped_images(spec, cache, config["folder"], start.data["fingerprint"])
    if hasattr(source, "receive"):
        return _received_images(source, cache)
    if isinstance(source, ray.ObjectRef):
        return _shared_images(source)
    images: ImageSet = source
    return images


def _fetched(value: Any) -> Any:
    return ray.get(value) if isinstance(value, ray.ObjectRef) else value


@lru_cache(maxsize=1)
def _shared_images(reference: "ray.ObjectRef[ImageSet]") -> ImageSet:
    """Return the images in the node's shared memory, as one object for all trials.

    Their copy on a GPU lives as long as the object: see trainables/resident_pixels.py.
    """
    images: ImageSet = ray.get(reference)
    return images


@lru_cache(maxsize=1)
def _mapped_images(
    spec: DatasetSpec, cache: Path | None, folder: str, fingerprint: str
) -> ImageSet:
    with inside(folder):
        return load_dataset(spec, cache=cache, fingerprint=fingerprint)


@lru_cache(maxsize=1)
def _received_images(source: Any, cache: Path | None) -> ImageSet:
    images: ImageSet = source.receive(cache)
    return images
