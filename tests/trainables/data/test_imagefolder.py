"""Folders of images: which files are images, which folders are classes and splits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from tests.trainables.data.samples import load, pixels, png, write_images
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.pixels import read_image, resize_image


def test_classes_in_the_root(tmp_path: Path, cache: Path) -> None:
    files = ["dogs/b.png", "cats/z.png", "cats/a.png", "dogs/deep/er/c.png", "train/wagon.png"]
    write_images(tmp_path / "pets", files)
    images = load("imagefolder", tmp_path / "pets", cache)
    assert images.name == "pets"
    assert images.class_names == ("cats", "dogs", "train")
    order = sorted(range(5), key=lambda i: files[i])
    assert np.array_equal(images.images, np.stack([pixels(i) for i in order]))
    assert images.labels.tolist() == [0, 0, 1, 1, 2]
    assert images.is_test is None


def test_val_and_test_folders_are_the_sets_own_splits(tmp_path: Path, cache: Path) -> None:
    files = ["train/a/1.png", "train/b/2.png", "val/a/3.png", "valid/b/4.png", "test/a/5.png",
             "test/b/6.png", "validation/a/8.png", "extra/a/7.png"]  # fmt: skip
    write_images(tmp_path / "set", files)
    images = load("imagefolder", tmp_path / "set", cache)
    assert images.class_names == ("a", "b")
    assert len(images) == 7
    assert images.is_test is not None
    kept = sorted(files[:7])
    assert images.is_test.tolist() == [name.startswith("test") for name in kept]
    assert images.is_val is not None
    assert images.is_val.tolist() == [name.startswith("val") for name in kept]


def test_hidden_and_other_files_are_ignored(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "set"
    write_images(root, ["a/1.PNG", "b/2.Jpeg", ".hidden/3.png", "a/.4.png", "b/.git/5.png"])
    for name in ("a/notes.txt", "readme.md", "empty/thumbs.db", "a/Makefile"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("text")
    images = load("imagefolder", root, cache)
    assert images.class_names == ("a", "b")
    assert len(images) == 2


def test_a_class_without_readable_images_is_refused_by_name(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "set"
    write_images(root, ["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"])
    for name in ("train/notes/x.xml", "train/__MACOSX/._1.png", "val/a/x.txt"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("text")
    assert load("imagefolder", root, cache).class_names == ("a", "b")
    (root / "train" / "owl").mkdir()
    (root / "test" / "dog" / "deep").mkdir(parents=True)
    for number in range(3):
        (root / "test" / "dog" / "deep" / f"{number}.HEIC").touch()
    with pytest.raises(DataError, match=r"dog \(3 \.heic: .*heif\), owl \(empty\); .* or remove"):
        load("imagefolder", root, cache)


def test_folders_whose_names_look_the_same_are_one_class(tmp_path: Path, cache: Path) -> None:
    """On macOS an accent is often a separate character; names need not be valid UTF-8."""
    root = tmp_path / "set"
    write_images(root, ["train/caf\u00e9/1.png", "test/cafe\u0301/2.png"])
    write_images(root, ["train/line\nbreak/3.png", "test/line break /4.png"])
    write_images(root, ["train/\udcff/5.png", "test/\udcff/6.png"])
    images = load("imagefolder", root, cache)
    assert images.class_names == ("caf\u00e9", "line break", "ÿ")
    assert sorted(images.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert load("imagefolder", root, cache).fingerprint == images.fingerprint
    spec = DatasetSpec(name="imagefolder", path=str(root), leave_out=("cafe\u0301",))
    assert load_dataset(spec, cache=cache).class_names == ("line break", "ÿ")


@pytest.mark.parametrize(
    ("sides", "expected"),
    [([8, 9, 11], 8), ([12, 20, 30], 24), ([100, 300, 500], 64), ([3, 3, 4], 8)],
)
def test_the_default_image_size(
    sides: list[int], expected: int, tmp_path: Path, cache: Path
) -> None:
    for i, side in enumerate(sides):
        write_images(tmp_path / "set" / f"class{i}", ["image.png"], side)
    images = load("imagefolder", tmp_path / "set", cache)
    assert images.image_size == expected


def test_images_of_other_sizes_are_resized(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "set"
    write_images(root, ["a/1.png", "b/2.png"])
    wide = np.random.default_rng(9).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    Image.fromarray(wide).save(root / "b" / "3.png")
    images = load("imagefolder", root, cache, image_size=12)
    assert images.image_size == 12
    assert np.array_equal(images.images[2], resize_image(Image.fromarray(wide), 12))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no images in .*set: expected root/CLASS"),
        (["flat.png"], "no images in .*set: expected root/CLASS"),
        (["only/1.png", "only/2.png"], "only one class in .*set: 'only'; at least two"),
        (["pets/cat/1.png", "pets/dog/2.png"], "only one class .* use that folder"),
        (["test/a/1.png", "test/b/2.png"], "images in test only"),
    ],
)
def test_a_folder_without_two_classes_to_train_on_is_refused(
    files: list[str], message: str, tmp_path: Path, cache: Path
) -> None:
    (tmp_path / "set").mkdir()
    write_images(tmp_path / "set", files)
    with pytest.raises(DataError, match=message):
        load("imagefolder", tmp_path / "set", cache)
    assert not cache.exists() or not any(cache.iterdir())


def test_an_empty_folder_names_the_files_it_holds(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.svg").touch()
    with pytest.raises(DataError, match=r"no images in .*; found 1 \.svg, 1 \.txt"):
        load("imagefolder", tmp_path, cache)


@pytest.mark.parametrize("image_size", [None, 8])
def test_unreadable_files_are_named_and_counted(
    image_size: int | None, tmp_path: Path, cache: Path
) -> None:
    root = tmp_path / "set"
    write_images(root, ["a/1.png", "b/2.png"])
    for i in range(5):
        (root / "b" / f"bad{i}.png").write_bytes(png(i)[: 40 + 10 * i])
    message = r"5 of 7 images .*: b/bad0\.png, b/bad1\.png, b/bad2\.png, …; replace"
    with pytest.raises(DataError, match=message):
        load("imagefolder", root, cache, image_size)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_folder_without_a_readable_image_names_one(tmp_path: Path, cache: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "x.jpg").write_text("text")
    with pytest.raises(DataError, match=r"none of 2 images of .*set .* x\.jpg"):
        load("imagefolder", tmp_path / "set", cache)


def test_links_are_followed_but_cycles_are_not(tmp_path: Path, cache: Path) -> None:
    write_images(tmp_path, ["set/a/1.png", "elsewhere/deep/2.png", "set/b/3.png"])
    root = tmp_path / "set"
    (root / "b" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "round").symlink_to(root)
    (root / "a" / "dangling.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"1 of 4 images .*: a/dangling\.png"):
        load("imagefolder", root, cache)
    (root / "a" / "dangling.png").unlink()
    assert load("imagefolder", root, cache).labels.tolist() == [0, 1, 1]


def mixed_folder(root: Path) -> list[str]:
    """Write two classes in every mode, format and size; one file is truncated."""
    grey = Image.fromarray(pixels(0, 40)).convert("L")
    deep = Image.fromarray(np.linspace(0, 65535, 30 * 20).astype(np.uint16).reshape(20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    waves = Image.fromarray(pixels(1, 48)).resize((96, 64))
    files: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "a/grey.png": (grey, {}),
        "a/grey and alpha.png": (grey.convert("LA"), {}),
        "a/palette.png": (waves.convert("P"), {"transparency": 3}),
        "a/one bit.bmp": (grey.convert("1"), {}),
        "b/alpha.webp": (waves.convert("RGBA"), {}),
        "b/cmyk.jpg": (waves.convert("CMYK"), {}),
        "b/deep.png": (deep, {}),
        "b/moving.gif": (waves, {"save_all": True, "append_images": [grey.resize((96, 64))]}),
        "b/turned.JPEG": (waves, {"exif": exif}),
        "b/cut.jpg": (waves, {}),
    }
    for name, (image, options) in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / name, "JPEG" if name.lower().endswith("jpeg") else None, **options)
    cut = root / "b" / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-400])
    return sorted(files)


def test_a_folder_of_every_mode_and_size(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "mixed"
    files = mixed_folder(root)
    spec = DatasetSpec(name="images", path=str(root), image_size=24)
    with pytest.raises(DataError, match=r"1 of 10 images .*: b/cut\.jpg; .*--skip-unreadable"):
        load_dataset(spec, cache=cache)
    images = load_dataset(replace(spec, skip_unreadable=True), cache=cache)
    assert images.skipped == ("b/cut.jpg",)
    files.remove("b/cut.jpg")
    assert images.labels.tolist() == [name.startswith("b") for name in files]
    for name, image in zip(files, images.images, strict=True):
        assert np.array_equal(image, read_image(root / name, 24))  # as `quorum predict` does
    sizes = images.source_sizes  # without the file that is cut short
    assert [sizes.smallest, sizes.median, sizes.largest] == [(30, 20), *[(96, 64)] * 2]
    assert sizes.modes == {"P": 2, "RGB": 2, "1": 1, "CMYK": 1, "I;16": 1, "L": 1, "LA": 1}
