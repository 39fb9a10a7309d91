"""Data sets by name: the specification, the bundled digits, the detected layout of a folder."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from common.errors import DataError, SpecError
from tests.trainables.data.samples import load, pixels, write_images, write_parquet
from trainables.data.dataset import DatasetSpec, load_dataset, resolve_dataset
from trainables.data.splits import SplitSpec, make_splits


def test_unknown_data_sets_and_impossible_sizes_are_refused() -> None:
    with pytest.raises(SpecError, match="unknown key 'cifar100'; did you mean 'cifar10'"):
        DatasetSpec(name="cifar100")
    with pytest.raises(SpecError, match=r"image_size .* \[4, 1024\] pixels, got 2"):
        DatasetSpec(image_size=2)


@pytest.mark.parametrize("kind", ["parquet", "imagefolder", "images"])
def test_a_missing_folder_is_one_clear_error(kind: str, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError, match=f"{kind} needs a folder: .*--data"):
        load_dataset(DatasetSpec(name=kind), cache=cache)
    with pytest.raises(DataError, match=r"no folder .*absent"):
        load(kind, tmp_path / "absent", cache)


@pytest.mark.parametrize("kind", ["parquet", "imagefolder"])
def test_a_folder_that_cannot_be_listed_is_one_clear_error(
    kind: str, tmp_path: Path, cache: Path
) -> None:
    """The kernel refuses so long a name even to root, whom permissions do not stop."""
    refused = os.strerror(errno.ENAMETOOLONG)
    with pytest.raises(DataError, match=f"cannot be listed: .*{refused}"):
        load(kind, tmp_path / ("x" * 300), cache)


def test_a_folder_without_a_data_set_says_what_is_expected(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"no data set: .*root/CLASS.*train\*\.parquet"):
        load("images", tmp_path, cache)


def test_digits_are_sixteen_pixels_of_rgb(cache: Path) -> None:
    digits = load_dataset(DatasetSpec(), cache=cache)
    assert not cache.exists()
    assert digits.images.shape == (1797, 16, 16, 3)
    assert digits.class_names == tuple("0123456789")
    assert np.bincount(digits.labels).min() == 174
    assert digits.is_test is None
    assert (digits.images == digits.images[..., :1]).all()
    assert (digits.images.min(), digits.images.max()) == (0, 255)
    assert digits.fingerprint == "sha256:654a40bf41ff2936"
    assert (digits.source_sizes.largest, digits.source_sizes.modes) == ((8, 8), {"L": 1797})


def test_digits_are_resized_bilinearly() -> None:
    """Doubling with the linear filter weighs the nearer pixel ¾ and the farther ¼."""
    eight = np.rint(load_digits().images[:20] * (255 / 16))
    low = np.concatenate([eight[:, :, :1], eight[:, :, :-1]], axis=2)
    high = np.concatenate([eight[:, :, 1:], eight[:, :, -1:]], axis=2)
    wide = np.stack([0.75 * eight + 0.25 * low, 0.75 * eight + 0.25 * high], axis=3)
    wide = wide.reshape(20, 8, 16)
    low = np.concatenate([wide[:, :1], wide[:, :-1]], axis=1)
    high = np.concatenate([wide[:, 1:], wide[:, -1:]], axis=1)
    tall = np.stack([0.75 * wide + 0.25 * low, 0.75 * wide + 0.25 * high], axis=2)
    digits = load_dataset(DatasetSpec()).images[:20, :, :, 0]
    assert np.abs(digits - tall.reshape(20, 16, 16)).max() <= 1.0
    assert load_dataset(DatasetSpec(image_size=8)).images[0, :, :, 0].tolist() == eight[0].tolist()


def test_changed_files_do_not_affect_a_running_sweep(tmp_path: Path, cache: Path) -> None:
    """A worker that starts late gets the fingerprint that the run started with."""
    root = tmp_path / "set"
    write_images(root, ["a/1.png", "b/2.png"])
    before = load("imagefolder", root, cache)
    write_images(root, ["a/3.png"])
    spec = DatasetSpec(name="imagefolder", path=str(root))
    late = load_dataset(spec, cache=cache, fingerprint=before.fingerprint)
    assert late.fingerprint == before.fingerprint
    assert np.array_equal(late.images, before.images)
    assert len(load_dataset(spec, cache=cache)) == 3


@pytest.mark.parametrize("name", ["images", "cifar10", "digits"])
@pytest.mark.parametrize("layout", ["parquet", "imagefolder"])
def test_the_folders_layout_overrides_the_name(
    name: str, layout: str, tmp_path: Path, cache: Path
) -> None:
    root = tmp_path / "set"
    if layout == "parquet":
        write_parquet(root / "data" / "train-00000-of-00001.parquet", [0, 1], [0, 1])
    else:
        write_images(root, ["a/1.png", "b/2.png"])
    spec = DatasetSpec(name=name, path=str(root))
    resolved = resolve_dataset(spec)
    assert resolved == DatasetSpec(name=layout, path=str(root), image_size=8)
    assert load_dataset(spec, cache=cache).fingerprint == (
        load_dataset(resolved, cache=cache).fingerprint
    )
    assert not any(path.name.startswith("cifar") for path in root.iterdir())
    assert resolve_dataset(resolved) == resolved


def test_the_image_size_is_limited_to_what_is_affordable(tmp_path: Path) -> None:
    write_images(tmp_path, ["a/1.png", "b/2.png"], size=120)
    spec = DatasetSpec(name="images", path=str(tmp_path))
    assert resolve_dataset(spec).image_size == 64
    assert resolve_dataset(spec, affordable=50).image_size == 48
    assert resolve_dataset(spec, affordable=128).image_size == 120
    assert resolve_dataset(replace(spec, image_size=90), affordable=50).image_size == 90
    assert resolve_dataset(DatasetSpec()) == DatasetSpec()


def test_train_must_have_the_classes_of_the_own_val_and_test(tmp_path: Path, cache: Path) -> None:
    names = ["train/a/1.png", "train/b/2.png", "train/c/3.png", "test/a/4.png", "test/b/5.png",
             "test/d/6.png", "val/e/7.png"]  # fmt: skip
    write_images(tmp_path, names)
    with pytest.raises(DataError, match=r"d only in test; e only in val; .*dataset\.leave_out"):
        load("imagefolder", tmp_path, cache)
    spec = DatasetSpec(name="images", path=str(tmp_path), leave_out=("c", "d", "e"))
    images = load_dataset(spec, cache=cache)
    assert images.class_names == ("a", "b")
    assert images.labels.tolist() == [0, 1, 0, 1]  # in the order of the paths, test first
    assert np.array_equal(images.images[2], pixels(0))


def test_a_class_without_test_images_is_kept(tmp_path: Path, cache: Path) -> None:
    names = [f"train/{k}/{i}.png" for k in "abc" for i in range(20)]
    write_images(tmp_path, [*names, "test/a/90.png", "test/b/91.png"])
    images = load("imagefolder", tmp_path, cache)
    assert images.class_names == ("a", "b", "c")
    (warning,) = make_splits(images, SplitSpec()).warnings
    assert warning == "1 of 3 classes has no example in test: c"


def test_classes_are_renumbered_if_one_is_left_out(tmp_path: Path, cache: Path) -> None:
    write_images(tmp_path, ["a/1.png", "b/2.png", "c/3.png"])
    spec = DatasetSpec(name="images", path=str(tmp_path), leave_out=("b",))
    images = load_dataset(spec, cache=cache)
    assert images.class_names == ("a", "c")
    assert images.labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"leave_out names 'dog', .*; classes: a, b, c"):
        load_dataset(replace(spec, leave_out=("dog",)), cache=cache)
    with pytest.raises(DataError, match=r"two or more distinct classes, got \['c'\]"):
        load_dataset(replace(spec, leave_out=("a", "b")), cache=cache)
    with pytest.raises(SpecError, match=r"leave_out needs .* files, but digits is not one"):
        load_dataset(DatasetSpec(leave_out=("3",)), cache=cache)
