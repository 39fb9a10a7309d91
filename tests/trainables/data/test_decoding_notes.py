"""Losses that only show while images are decoded are counted and named, once per data set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from tests.trainables.data.samples import png, write_images
from tests.trainables.data.test_pixels import huge_png
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.grey_levels import GreyLevels
from trainables.data.image_set import ImageSet
from trainables.data.pixels import read_image


def notes_of(images: ImageSet) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {note.topic: (note.count, note.examples) for note in images.notes}


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    ("highest", "dtype", "levels"),
    [
        (4095, np.uint16, GreyLevels(integer=(0, 4095))),
        (3000, np.uint16, GreyLevels(integer=(0, 4095))),
        (65535, np.uint16, GreyLevels()),
        (70000, np.int32, GreyLevels(integer=(0, 131071))),
        (1.0, np.float32, GreyLevels(floating=(0, 1))),
        (200.0, np.float32, GreyLevels()),
    ],
)
def test_deep_grey_images_get_one_range(
    highest: float, dtype: type, levels: GreyLevels, suffix: str, tmp_path: Path, cache: Path
) -> None:
    if suffix == "png" and dtype is not np.uint16:
        pytest.skip("PNG holds at most 16 bits")
    root = tmp_path / "set"
    for number, share in enumerate([0.1, 0.5, 1.0, 0.25]):
        path = root / "ab"[number % 2] / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        values: np.ndarray = np.linspace(0, share * highest, 64).reshape(8, 8).astype(dtype)
        Image.fromarray(values).save(path)
    write_images(root, ["b/plain.jpg"])
    spec = DatasetSpec(name="images", path=str(root), image_size=8)
    for _ in range(2):  # decoded, then mapped from the cache
        images = load_dataset(spec, cache=cache)
        assert images.grey_levels == levels
        assert notes_of(images) == {"grey_levels": (4, ())}
        top = levels.floating[1] if dtype is np.float32 else levels.integer[1]
        for index, path in enumerate(sorted(root.rglob(f"*.{suffix}"))):
            share = float(np.asarray(Image.open(path)).max()) / top
            assert abs(int(images.images[index].max()) - 255 * share) <= 0.51
            assert np.array_equal(images.images[index], read_image(path, 8, levels=levels))


def test_skipped_images_are_told_by_reason(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "set"
    write_images(root, ["a/1.png", "b/2.png"])
    (root / "a" / "bomb.png").write_bytes(huge_png(20_000, 10_000))
    (root / "b" / "empty.png").write_bytes(b"")
    (root / "b" / "cut.png").write_bytes(png(3)[:60])
    spec = DatasetSpec(name="images", path=str(root), image_size=8)
    with pytest.raises(DataError, match=r"3 of 5 images .*\(1 have more than 178,956,970 pixels\)"):
        load_dataset(spec, cache=cache)
    images = load_dataset(replace(spec, skip_unreadable=True), cache=cache)
    assert notes_of(images) == {
        "unreadable": (2, ("b/cut.png", "b/empty.png")),
        "too_large": (1, ("a/bomb.png",)),
    }
    assert images.skipped == ("a/bomb.png", "b/cut.png", "b/empty.png")


def test_copies_in_two_classes_and_in_test_are_named(tmp_path: Path, cache: Path) -> None:
    files = ["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"]
    write_images(tmp_path, files)
    (tmp_path / "train/b/copy.png").write_bytes(png(0))
    (tmp_path / "test/a/copy.png").write_bytes(png(1))
    images = load_dataset(DatasetSpec(name="images", path=str(tmp_path)), cache=cache)
    assert notes_of(images) == {
        "two_classes": (4, ("test/a/copy.png = train/b/2.png", "train/a/1.png = train/b/copy.png")),
        "train_and_test": (1, ("test/a/copy.png = train/b/2.png",)),
    }
