"""Images of other data: the built-in sets, a user's folder, and the AUROC against them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from ensemble.robustness.other_data import (
    built_in_images,
    folder_images,
    other_data_rows,
    textures,
)
from tests.pools import stage_predictions
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_set import ImageSet


def image_set(size: int) -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(
        name="photographs",
        images=rng.integers(0, 256, (6, size, size, 3), np.uint8),
        labels=np.arange(6) % 2,
        class_names=("a", "b"),
    )


def test_photographs_are_compared_with_digits_of_their_size() -> None:
    ((name, images),) = built_in_images(image_set(24), 50, seed=0).items()
    assert (name, str(images.dtype), images.shape) == ("digits", "uint8", (50, 24, 24, 3))


def test_digits_are_compared_with_textures() -> None:
    digits = load_dataset(DatasetSpec(name="digits"))
    ((name, images),) = built_in_images(digits, 20, seed=0).items()
    assert (name, str(images.dtype), images.shape) == ("textures", "uint8", (20, 16, 16, 3))
    assert images.std(axis=(1, 2, 3)).min() > 10


def test_textures_are_repeatable_and_all_different() -> None:
    drawn = textures(10, 16, seed=3)
    assert np.array_equal(drawn[:4], textures(4, 16, seed=3))
    assert len({texture.tobytes() for texture in drawn}) == 10
    assert not np.array_equal(drawn, textures(10, 16, seed=4))


class TestAFolder:
    def test_its_images_are_read_at_any_depth_and_size(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        for i in range(9):
            place = tmp_path / f"{i % 3}" / f"{i}.png"
            place.parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), np.uint8)).save(place)
        (tmp_path / "notes.txt").write_text("no image")
        (tmp_path / "broken.png").write_bytes(b"not a PNG")
        images = folder_images(tmp_path, 100, side=12, like=image_set(12))
        assert (str(images.dtype), images.shape) == ("uint8", (9, 12, 12, 3))
        assert folder_images(tmp_path, 4, side=12, like=image_set(12)).shape[0] <= 4

    def test_a_missing_or_empty_one_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="there is no folder"):
            folder_images(tmp_path / "none", 10, side=12, like=image_set(12))
        with pytest.raises(DataError, match="0 images that can be read"):
            folder_images(tmp_path, 10, side=12, like=image_set(12))


def test_rows_rise_with_the_confidence_on_test() -> None:
    made = stage_predictions(0)
    flat = {stage: np.full((40, 3), np.log(1 / 3), np.float32) for stage in made.stages}
    rows = other_data_rows("flat", made.stages, flat)
    assert next(row.stage for row in rows) == "best_single"
    assert all(row.auroc == 1.0 and row.interval[0] > 0.8 and row.images == 40 for row in rows)
    for row in other_data_rows("itself", made.stages, made.stages):
        assert row.auroc == pytest.approx(0.5)
        assert row.interval[0] < 0.5 < row.interval[1]
