"""Images of other data sets, on which a classifier should be less confident than on test.

Axes: N images, S×S pixels, 3 channels (RGB). Two sets need no download: scikit-learn's handwritten
digits and, for a run on digits, textures drawn with the plasma fractal of `corruptions`.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8
from PIL import Image

from common.errors import DataError
from common.sampling import evenly_spaced
from common.seeds import numpy_generator
from common.statistics.auroc import auroc
from ensemble.ledger.predictions import STAGES, LogProbs
from ensemble.ledger.robustness import OtherDataRow
from ensemble.robustness.corruptions import plasma
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_formats import file_type
from trainables.data.image_set import ImageSet
from trainables.data.pixels import read_image, resize_image

Images = UInt8[np.ndarray, "N S S 3"]

DIGITS_SIDE = 8
"""Side of the digit images in pixels before they are resized."""

MOST_FILES = 100_000
"""Largest number of a folder's files that are listed; images are chosen from these."""


def built_in_images(images: ImageSet, most: int, *, seed: int) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the built-in set for a run on `images`: its name and at most `most` images."""
    if images.name == "digits":
        return {"textures": textures(most, images.image_size, seed=seed)}
    digits = load_dataset(DatasetSpec(name="digits", image_size=DIGITS_SIDE)).images
    chosen = digits[evenly_spaced(len(digits), most)]
    return {
        "digits": np.stack([resize_image(Image.fromarray(x), images.image_size) for x in chosen])
    }


def textures(count: int, side: int, *, seed: int) -> npt.NDArray[np.uint8]:
    """Return coloured textures uint8 [count, side, side, 3], from smooth clouds to fine grain."""
    drawn = np.empty((count, side, side, 3), np.uint8)
    for index in range(count):
        rng = numpy_generator(seed, "texture", index)
        smoothness = rng.uniform(1.1, 2.0)
        layers = [plasma(side, smoothness, rng) for _ in range(3)]
        drawn[index] = np.rint(255 * np.stack(layers, axis=2))
    return drawn


def image_paths(folder: Path, *, most: int = MOST_FILES) -> list[Path]:
    """Return `most` image files of a folder and its subfolders, or all if there are fewer, sorted.

    Raises:
        DataError: there is no such folder, or it has fewer than two.
    """
    if not folder.is_dir():
        raise DataError(f"robustness.ood: there is no folder {folder}; give one with images")
    images = (
        path
        for path in folder.rglob("*")
        if path.is_file() and file_type(str(path)).kind == "image"
    )
    files = sorted(islice(images, most))
    if len(files) < 2:
        raise DataError(
            f"robustness.ood: {folder} has {len(files)} images that can be read; give two or more"
        )
    return files


def folder_images(folder: Path, most: int, *, side: int, like: ImageSet) -> npt.NDArray[np.uint8]:
    """Return at most `most` images of a folder and its subfolders, evenly spaced by path.

    They are made square in the same way as the images of the run. Images that cannot be read are
    left out.

    Raises:
        DataError: there is no such folder, or it has fewer than two images that can be read.
    """
    files = image_paths(folder)
    read = []
    for index in evenly_spaced(len(files), most):
        try:
            read.append(read_image(files[index], side, like.resize, like.grey_levels))
        except DataError:
            continue
    if len(read) < 2:
        raise DataError(
            f"robustness.ood: {folder} has {len(read)} images that can be read; give two or more"
        )
    return np.stack(read)


def other_data_rows(
    name: str, test: Mapping[str, LogProbs], other: Mapping[str, LogProbs]
) -> tuple[OtherDataRow, ...]:
    """Return the AUROC of each stage's largest probability: test against the set `name`.

    An energy score (Liu et al., 2020) needs logits; exported files and ensembles give
    log-probabilities, whose log-sum-exp is 0.
    """
    rows = []
    for stage in (stage for stage in STAGES if stage in test and stage in other):
        value, interval = auroc(test[stage].max(axis=1), other[stage].max(axis=1))
        rows.append(
            OtherDataRow(
                stage=stage,
                data=name,
                images=len(other[stage]),
                auroc=value,
                interval=(interval.low, interval.high),
            )
        )
    return tuple(rows)
