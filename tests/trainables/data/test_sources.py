"""The bundled digits, CIFAR-10, folders of images, Parquet, and what identifies them."""

import functools
import hashlib
import http.server
import io
import json
import pickle
import sys
import tarfile
import threading
import types
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from common.errors import DataError, SpecError
from trainables.data.pixels import read_image
from trainables.data.sources import (
    DatasetSpec,
    ImageSet,
    load_dataset,
    resize_image,
    resolve_dataset,
)


def pixels(seed: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def png(seed: int, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, size)).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(root: Path, files: list[str], size: int = 8) -> None:
    """Image number i at the i-th path."""
    for i, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i, size))


def load(kind: str, root: Path, cache: Path, image_size: int | None = None) -> ImageSet:
    spec = DatasetSpec(name=kind, path=str(root), image_size=image_size)
    return load_dataset(spec, cache=cache)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# ------------------------------------------------------------------ the value


def image_set(**changes: Any) -> ImageSet:
    values: dict[str, Any] = {
        "name": "set",
        "images": np.stack([pixels(i) for i in range(4)]),
        "labels": np.array([0, 1, 1, 0]),
        "class_names": ("a", "b"),
    }
    return ImageSet(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((4, 8, 8, 3))}, r"images must be uint8 \[N, S, S, 3\], got float64"),
        ({"images": np.zeros((4, 8, 9, 3), np.uint8)}, r"got uint8 \[4, 8, 9, 3\]"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "at least one image"),
        ({"labels": np.array([0, 1, 1, 0], np.int32)}, r"labels must be int64 \[4\], got int32"),
        ({"labels": np.array([0, 1, 1])}, r"labels must be int64 \[4\], got int64 \[3\]"),
        ({"labels": np.array([0, 1, 2, 0])}, r"labels must lie in 0 … 1, got 2"),
        ({"labels": np.array([0, -1, 1, 0])}, r"labels must lie in 0 … 1, got -1"),
        ({"class_names": ("a",)}, "two or more distinct classes"),
        ({"class_names": ("a", "a")}, "two or more distinct classes"),
        ({"is_test": np.zeros(4, np.int64)}, r"is_test must be bool \[4\]"),
        ({"is_test": np.ones(4, np.bool_)}, "marks every image"),
        ({"is_test": np.zeros(4, np.bool_)}, "marks no image"),
        ({"groups": ("p", "q")}, "one entry an image: 2 for 4"),
    ],
)
def test_an_impossible_set_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        image_set(**changes)


def test_the_fingerprint_is_of_content() -> None:
    one = image_set()
    assert one.fingerprint.startswith("sha256:")
    assert len(one.fingerprint) == len("sha256:") + 16
    assert image_set(name="other").fingerprint == one.fingerprint
    strided = np.repeat(one.images, 2, axis=0)[::2]
    assert image_set(images=strided).fingerprint == one.fingerprint
    assert image_set(fingerprint="sha256:known").fingerprint == "sha256:known"


@pytest.mark.parametrize(
    "changes",
    [
        {"images": np.stack([pixels(i) for i in (0, 1, 2, 4)])},
        {"images": np.stack([pixels(i) for i in (1, 0, 2, 3)])},
        {"labels": np.array([0, 1, 1, 1])},
        {"class_names": ("a", "c")},
        {"is_test": np.array([True, False, False, False])},
        {"groups": ("", "", "", "")},
    ],
)
def test_every_part_of_the_content_counts(changes: dict[str, Any]) -> None:
    assert image_set(**changes).fingerprint != image_set().fingerprint


@given(st.integers(0, 3), st.integers(0, 7), st.integers(0, 7), st.integers(0, 2))
def test_every_pixel_counts(n: int, y: int, x: int, c: int) -> None:
    images = image_set().images.copy()
    images[n, y, x, c] ^= 1
    assert image_set(images=images).fingerprint != image_set().fingerprint


def test_the_chunks_of_the_hash_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = image_set().fingerprint
    monkeypatch.setattr("trainables.data.image_set.CHUNK_BYTES", 1)
    assert image_set().fingerprint == whole


# ------------------------------------------------------------------ the specification


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(SpecError, match="unknown key 'cifar100'; did you mean 'cifar10'"):
        DatasetSpec(name="cifar100")
    with pytest.raises(SpecError, match=r"image_size must lie in \[4, 1024\] pixels, got 2"):
        DatasetSpec(image_size=2)


@pytest.mark.parametrize("kind", ["parquet", "imagefolder"])
def test_a_missing_path_is_one_clear_error(kind: str, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError, match=f"{kind} needs a folder: set dataset.path, or give --data"):
        load_dataset(DatasetSpec(name=kind), cache=cache)
    with pytest.raises(DataError, match=r"there is no folder .*absent"):
        load(kind, tmp_path / "absent", cache)


@pytest.mark.parametrize("kind", ["parquet", "imagefolder"])
def test_a_folder_that_must_not_be_listed(
    kind: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(DataError, match=r"cannot be listed: .*Permission denied"):
        load(kind, tmp_path, cache)


# ------------------------------------------------------------------ digits


def test_digits_are_sixteen_pixels_of_rgb(cache: Path) -> None:
    digits = load_dataset(DatasetSpec(), cache=cache)
    assert not cache.exists()
    assert digits.images.shape == (1797, 16, 16, 3)
    assert digits.class_names == tuple("0123456789")
    assert np.bincount(digits.labels).min() == 174
    assert digits.is_test is None
    assert (digits.images == digits.images[..., :1]).all()
    assert (digits.images.min(), digits.images.max()) == (0, 255)
    assert digits.fingerprint == "sha256:a4ed668719e5c0e1"
    assert (digits.originals.largest, digits.originals.modes) == ((8, 8), {"L": 1797})


def test_digits_are_resized_bilinearly() -> None:
    """Doubling by the linear filter puts ¾ of the nearer and ¼ of the farther pixel."""
    eight = np.rint(load_digits().images[:20] * (255 / 16))
    low = np.concatenate([eight[:, :, :1], eight[:, :, :-1]], axis=2)
    high = np.concatenate([eight[:, :, 1:], eight[:, :, -1:]], axis=2)
    wide = np.stack([0.75 * eight + 0.25 * low, 0.75 * eight + 0.25 * high], axis=3)
    wide = wide.reshape(20, 8, 16)
    low = np.concatenate([wide[:, :1], wide[:, :-1]], axis=1)
    high = np.concatenate([wide[:, 1:], wide[:, -1:]], axis=1)
    tall = np.stack([0.75 * wide + 0.25 * low, 0.75 * wide + 0.25 * high], axis=2)
    found = load_dataset(DatasetSpec()).images[:20, :, :, 0]
    assert np.abs(found - tall.reshape(20, 16, 16)).max() <= 1.0
    assert load_dataset(DatasetSpec(image_size=8)).images[0, :, :, 0].tolist() == eight[0].tolist()


# ------------------------------------------------------------------ CIFAR-10


class FakeCifar10:
    """torchvision's class, as far as we use it: 20 training and 10 test images."""

    error: Exception | None = None
    calls = 0

    def __init__(self, root: Path, *, train: bool, download: bool) -> None:
        assert download
        if FakeCifar10.error:
            raise FakeCifar10.error
        FakeCifar10.calls += 1
        folder = Path(root) / "cifar-10-batches-py"
        folder.mkdir(exist_ok=True)
        for name in ("data_batch_1", "test_batch", "batches.meta", "readme.html"):
            if not (folder / name).exists():
                (folder / name).touch()
        start, count = (0, 20) if train else (100, 10)
        self.data = np.stack([pixels(start + i, 32) for i in range(count)])
        self.targets = [i % 10 for i in range(count)]
        self.classes = [f"class {i}" for i in range(10)]


@pytest.fixture
def fake_cifar10(monkeypatch: pytest.MonkeyPatch) -> type[FakeCifar10]:
    module: Any = types.ModuleType("torchvision.datasets")
    module.CIFAR10 = FakeCifar10
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    monkeypatch.setattr(FakeCifar10, "error", None)
    monkeypatch.setattr(FakeCifar10, "calls", 0)
    return FakeCifar10


def test_cifar10_keeps_its_order_and_its_test_split(
    fake_cifar10: type[FakeCifar10], tmp_path: Path, cache: Path
) -> None:
    found = load("cifar10", tmp_path / "data", cache)
    assert found.name == "cifar10"
    assert np.array_equal(found.images[:20], np.stack([pixels(i, 32) for i in range(20)]))
    assert found.is_test is not None
    assert found.is_test.tolist() == [False] * 20 + [True] * 10
    assert found.labels.tolist() == [i % 10 for i in range(20)] + list(range(10))
    calls = fake_cifar10.calls
    again = load("cifar10", tmp_path / "data", cache)
    assert fake_cifar10.calls == calls  # from the cache
    assert again.fingerprint == found.fingerprint


def test_cifar10_can_be_resized(
    fake_cifar10: type[FakeCifar10], tmp_path: Path, cache: Path
) -> None:
    found = load("cifar10", tmp_path / "data", cache, image_size=16)
    assert np.array_equal(found.images[3], resize_image(Image.fromarray(pixels(3, 32)), 16))
    assert (found.originals.median, found.originals.modes) == ((32, 32), {"RGB": 30})


def test_cifar10_goes_where_it_is_told(
    fake_cifar10: type[FakeCifar10],
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUORUM_DATA", str(tmp_path / "elsewhere"))
    load_dataset(DatasetSpec(name="cifar10"), cache=cache)
    assert (tmp_path / "elsewhere" / "cifar-10-batches-py").is_dir()
    monkeypatch.delenv("QUORUM_DATA")
    monkeypatch.chdir(tmp_path)
    load_dataset(DatasetSpec(name="cifar10"), cache=cache)
    assert (tmp_path / "data" / "cifar-10-batches-py").is_dir()


@pytest.mark.parametrize(
    "error", [URLError("no route"), RuntimeError("File not found or corrupted."), OSError("no")]
)
def test_cifar10_without_network_says_what_to_do(
    fake_cifar10: type[FakeCifar10], tmp_path: Path, cache: Path, error: Exception
) -> None:
    fake_cifar10.error = error
    message = "cannot be downloaded .*put cifar-10-python.tar.gz or .* there, or name .*QUORUM_DATA"
    with pytest.raises(DataError, match=message):
        load("cifar10", tmp_path / "data", cache)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.slow
def test_torchvisions_cifar10_is_downloaded_checked_and_read(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real class on an archive of batches of ten images, from a server on loopback.

    Its checksums are told to it, as it knows those of the published files.
    """
    from torchvision.datasets import CIFAR10

    source = tmp_path / "server" / "cifar-10-batches-py"
    source.mkdir(parents=True)

    def write(name: str, value: dict[str, Any]) -> str:
        data = pickle.dumps(value)
        (source / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(number: int) -> dict[str, Any]:
        images = np.stack([pixels(10 * number + i, 32) for i in range(10)])
        return {"data": images.transpose(0, 3, 1, 2).reshape(10, -1), "labels": [*range(10)]}

    names = [f"data_batch_{i}" for i in range(1, 6)]
    parts = [[name, write(name, batch(i))] for i, name in enumerate(names)]
    labels = {"label_names": [f"class {i}" for i in range(10)]}
    meta = {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", labels)}
    monkeypatch.setattr(CIFAR10, "train_list", parts)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", write("test_batch", batch(5))]])
    monkeypatch.setattr(CIFAR10, "meta", meta)
    archive = tmp_path / "server" / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(source, source.name)
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    handler = functools.partial(Quiet, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/cifar.tar.gz")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = load("cifar10", tmp_path / "here", cache)
        server.shutdown()
    assert np.array_equal(found.images, np.stack([pixels(i, 32) for i in range(60)]))
    assert found.labels.tolist() == [*range(10)] * 6
    assert found.class_names[3] == "class 3"
    assert found.is_test is not None
    assert found.is_test.sum() == 10
    (tmp_path / "here" / "cifar-10-python.tar.gz").unlink()
    assert load("cifar10", tmp_path / "here", tmp_path / "other cache").fingerprint == (
        found.fingerprint
    )  # nothing is downloaded that is there
    (tmp_path / "here" / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"no pickle of ours")
    with pytest.raises(DataError, match="cannot be downloaded"):
        load("cifar10", tmp_path / "here", cache)


# ------------------------------------------------------------------ folders of images


def test_classes_in_the_root(tmp_path: Path, cache: Path) -> None:
    files = ["dogs/b.png", "cats/z.png", "cats/a.png", "dogs/deep/er/c.png", "train/wagon.png"]
    write_images(tmp_path / "pets", files)
    found = load("imagefolder", tmp_path / "pets", cache)
    assert found.name == "pets"
    assert found.class_names == ("cats", "dogs", "train")
    order = sorted(range(5), key=lambda i: files[i])
    assert np.array_equal(found.images, np.stack([pixels(i) for i in order]))
    assert found.labels.tolist() == [0, 0, 1, 1, 2]
    assert found.is_test is None


def test_train_and_val_are_one_pool_and_test_is_test(tmp_path: Path, cache: Path) -> None:
    files = ["train/a/1.png", "train/b/2.png", "val/a/3.png", "valid/b/4.png", "test/a/5.png",
             "test/b/6.png", "validation/a/8.png", "extra/a/7.png"]  # fmt: skip
    write_images(tmp_path / "set", files)
    found = load("imagefolder", tmp_path / "set", cache)
    assert found.class_names == ("a", "b")
    assert len(found) == 7
    assert found.is_test is not None
    kept = sorted(files[:7])
    assert found.is_test.tolist() == [name.startswith("test") for name in kept]


def test_what_is_not_an_image_is_ignored(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "set"
    write_images(root, ["a/1.PNG", "b/2.Jpeg", ".hidden/3.png", "a/.4.png", "b/.git/5.png"])
    for name in ("a/notes.txt", "readme.md", "empty/thumbs.db", "a/Makefile"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("text")
    found = load("imagefolder", root, cache)
    assert found.class_names == ("a", "b")
    assert len(found) == 2


def test_a_class_whose_images_are_not_read_is_no_class_in_silence(
    tmp_path: Path, cache: Path
) -> None:
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
    message = (
        r"without an image that is read: dog \(3 \.heic\), owl \(empty\); put some of .* or remove"
    )
    with pytest.raises(DataError, match=message):
        load("imagefolder", root, cache)


def test_folders_that_look_the_same_are_one_class(tmp_path: Path, cache: Path) -> None:
    """On macOS an accent is often a character of its own; and bytes need not be UTF-8."""
    root = tmp_path / "set"
    write_images(root, ["train/caf\u00e9/1.png", "test/cafe\u0301/2.png"])
    write_images(root, ["train/line\nbreak/3.png", "test/line break /4.png"])
    write_images(root, ["train/\udcff/5.png", "test/\udcff/6.png"])
    found = load("imagefolder", root, cache)
    assert found.class_names == ("caf\u00e9", "line break", "\ufffd")
    assert sorted(found.labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert load("imagefolder", root, cache).fingerprint == found.fingerprint
    spec = DatasetSpec(name="imagefolder", path=str(root), leave_out=("cafe\u0301",))
    assert load_dataset(spec, cache=cache).class_names == ("line break", "\ufffd")


@pytest.mark.parametrize(
    ("sides", "expected"),
    [([8, 9, 11], 8), ([12, 20, 30], 24), ([100, 300, 500], 64), ([3, 3, 4], 8)],
)
def test_the_default_size(sides: list[int], expected: int, tmp_path: Path, cache: Path) -> None:
    for i, side in enumerate(sides):
        write_images(tmp_path / "set" / f"class{i}", ["image.png"], side)
    found = load("imagefolder", tmp_path / "set", cache)
    assert found.image_size == expected


def test_mixed_sizes_are_resized_by_the_one_rule(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "set"
    write_images(root, ["a/1.png", "b/2.png"])
    wide = np.random.default_rng(9).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    Image.fromarray(wide).save(root / "b" / "3.png")
    found = load("imagefolder", root, cache, image_size=12)
    assert found.image_size == 12
    assert np.array_equal(found.images[2], resize_image(Image.fromarray(wide), 12))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no images in .*set: expected root/CLASS"),
        (["flat.png"], "no images in .*set: expected root/CLASS"),
        (["only/1.png", "only/2.png"], "only one class in .*set: 'only'; at least two are needed$"),
        (
            ["pets/cat/1.png", "pets/dog/2.png"],
            "the classes seem to stand in .*set/pets: give that",
        ),
        (["test/a/1.png", "test/b/2.png"], "images in test only"),
    ],
)
def test_a_folder_that_is_no_problem_of_classification(
    files: list[str], message: str, tmp_path: Path, cache: Path
) -> None:
    (tmp_path / "set").mkdir()
    write_images(tmp_path / "set", files)
    with pytest.raises(DataError, match=message):
        load("imagefolder", tmp_path / "set", cache)
    assert not cache.exists() or not any(cache.iterdir())


@pytest.mark.parametrize("image_size", [None, 8])
def test_unreadable_files_are_named_and_counted(
    image_size: int | None, tmp_path: Path, cache: Path
) -> None:
    root = tmp_path / "set"
    write_images(root, ["a/1.png", "b/2.png"])
    for i in range(5):
        (root / "b" / f"bad{i}.png").write_bytes(png(i)[: 40 + 10 * i])
    message = r"5 of 7 images cannot be read: b/bad0\.png, b/bad1\.png, b/bad2\.png, …; replace"
    with pytest.raises(DataError, match=message):
        load("imagefolder", root, cache, image_size)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_folder_without_a_readable_image(tmp_path: Path, cache: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "x.jpg").write_text("text")
    with pytest.raises(DataError, match=r"none of 2 images of .*set can be read, e\.g\. x\.jpg"):
        load("imagefolder", tmp_path / "set", cache)


# ------------------------------------------------------------------ Parquet

CLASS_NAMES = {
    b"huggingface": json.dumps(
        {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    ).encode()
}


def write_parquet(
    path: Path,
    seeds: list[int],
    labels: list[Any],
    *,
    image: str = "img",
    label: str = "label",
    raw: bool = False,
    metadata: dict[bytes, bytes] | None = None,
    sizes: list[int] | None = None,
    **columns: list[Any],
) -> None:
    encoded = [png(s, size) for s, size in zip(seeds, sizes or [8] * len(seeds), strict=True)]
    images: list[Any] = encoded if raw else [{"bytes": e, "path": None} for e in encoded]
    kind = pa.binary() if raw else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(images, kind), label: labels, **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=3)


@pytest.mark.parametrize("below", ["", "data", "label=3"])
@pytest.mark.parametrize(("image", "raw"), [("img", False), ("image", True)])
@pytest.mark.parametrize("label", ["label", "labels", "fine_label"])
def test_shards_in_order_with_a_test_split(
    below: str, image: str, raw: bool, label: str, tmp_path: Path, cache: Path
) -> None:
    root = tmp_path / ("label=3" if below == "label=3" else "set")
    folder = root / "data" if below == "data" else root
    options = {"image": image, "raw": raw, "label": label}
    write_parquet(folder / "train-00000-of-00002.parquet", [0, 1, 2, 3], [0, 1, 0, 1], **options)  # type: ignore[arg-type]
    write_parquet(folder / "train-00001-of-00002.parquet", [4, 5], [1, 0], **options)  # type: ignore[arg-type]
    write_parquet(folder / "test-00000-of-00001.parquet", [6, 7], [0, 1], **options)  # type: ignore[arg-type]
    found = load("parquet", root, cache)
    assert np.array_equal(found.images, np.stack([pixels(i) for i in range(8)]))
    assert found.labels.tolist() == [0, 1, 0, 1, 1, 0, 0, 1]
    assert found.class_names == ("0", "1")
    assert found.is_test is not None
    assert found.is_test.tolist() == [False] * 6 + [True] * 2


def test_a_run_under_way_does_not_see_that_its_files_change(tmp_path: Path, cache: Path) -> None:
    """A worker that starts late is told the fingerprint that the run began with."""
    root = tmp_path / "set"
    write_images(root, ["a/1.png", "b/2.png"])
    begun = load("imagefolder", root, cache)
    write_images(root, ["a/3.png"])
    spec = DatasetSpec(name="imagefolder", path=str(root))
    late = load_dataset(spec, cache=cache, fingerprint=begun.fingerprint)
    assert late.fingerprint == begun.fingerprint
    assert np.array_equal(late.images, begun.images)
    assert len(load_dataset(spec, cache=cache)) == 3


def test_a_missing_shard_is_named(tmp_path: Path, cache: Path) -> None:
    """Hugging Face names the parts of a split, some versions with a hash at the end."""
    for name in ("train-00000-of-00003", "train-00002-of-00003", "test-00000-of-00001-ab12"):
        write_parquet(tmp_path / "set" / f"{name}.parquet", [0, 1], [0, 1])
    message = r"has 2 of 3 parts of train; fetch train-00001-of-00003\.parquet$"
    with pytest.raises(DataError, match=message):
        load("parquet", tmp_path / "set", cache)
    write_parquet(tmp_path / "set" / "train-00001-of-00003.parquet", [2, 3], [0, 1])
    assert len(load("parquet", tmp_path / "set", cache)) == 8


def test_class_names_from_the_metadata(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1], [1, 0], metadata=CLASS_NAMES)
    found = load("parquet", tmp_path, cache)
    assert found.class_names == ("cat", "dog")
    assert found.is_test is None
    assert found.groups is None


@pytest.mark.parametrize(
    "metadata",
    [None, {b"huggingface": b"not json"}, {b"huggingface": b'{"info": {"features": {}}}'},
     {b"huggingface": b'{"info": {"features": {"label": {"names": 3}}}}'}, {b"pandas": b"{}"}],
)  # fmt: skip
def test_without_names_the_values_are_the_classes(
    metadata: dict[bytes, bytes] | None, tmp_path: Path, cache: Path
) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1, 2], [10, 9, 9], metadata=metadata)
    found = load("parquet", tmp_path, cache)
    assert found.class_names == ("9", "10")
    assert found.labels.tolist() == [1, 0, 0]


def test_labels_may_be_texts(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1, 2], ["dog", "cat", "dog"])
    found = load("parquet", tmp_path, cache)
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [1, 0, 1]


def test_a_group_column(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1, 2], [0, 1, 0], group=[7, None, 7])
    found = load("parquet", tmp_path, cache)
    assert found.groups == ("7", "", "7")
    assert load("parquet", tmp_path, cache).groups == found.groups


def test_the_size_of_most_images_wins(tmp_path: Path, cache: Path) -> None:
    seeds, sizes = [0, 1, 2, 3, 4], [6, 12, 12, 20, 12]
    write_parquet(tmp_path / "train.parquet", seeds, [0, 1, 0, 1, 0], sizes=sizes)
    found = load("parquet", tmp_path, cache)
    assert found.image_size == 12
    assert (found.originals.smallest, found.originals.largest) == ((6, 6), (20, 20))
    assert np.array_equal(found.images[1], pixels(1, 12))
    assert load("parquet", tmp_path, cache, image_size=10).image_size == 10


def test_validation_shards_join_the_pool(tmp_path: Path, cache: Path) -> None:
    for i, name in enumerate(["train-0", "train-1", "validation-0", "test-0"]):
        write_parquet(tmp_path / f"{name}.parquet", [2 * i, 2 * i + 1], [0, 1])
    found = load("parquet", tmp_path, cache)
    assert np.array_equal(found.images, np.stack([pixels(i) for i in range(8)]))
    assert found.is_test is not None
    assert found.is_test.tolist() == [False] * 6 + [True] * 2


@pytest.mark.parametrize(
    ("labels", "metadata", "message"),
    [
        ([0, 2], CLASS_NAMES, "the label 2 is no class"),
        ([0, -1], CLASS_NAMES, "the label -1 is no class; if the test files are unlabelled"),
        ([0, -1], None, "the label -1 is no class"),
        ([0, None], None, "whole number or a text in every row, got NoneType, int"),
        ([0.5, 1.5], None, "whole number or a text in every row, got float"),
        ([1, 1], None, "two or more distinct classes"),
    ],
)
def test_labels_that_are_none(
    labels: list[Any],
    metadata: dict[bytes, bytes] | None,
    message: str,
    tmp_path: Path,
    cache: Path,
) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1], labels, metadata=metadata)
    with pytest.raises(DataError, match=message):
        load("parquet", tmp_path, cache)


def test_files_that_cannot_be_used(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError, match=r"no train\*\.parquet in .* or in its folder data"):
        load("parquet", tmp_path, cache)
    path = tmp_path / "train.parquet"
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"the Parquet files in .* cannot be read"):
        load("parquet", tmp_path, cache)
    write_parquet(path, [0, 1], [0, 1], image="picture")
    with pytest.raises(DataError, match="none of the columns img, image; it has picture, label"):
        load("parquet", tmp_path, cache)
    write_parquet(path, [0, 1], [0, 1], label="class")
    with pytest.raises(DataError, match="none of the columns label, labels, fine_label"):
        load("parquet", tmp_path, cache)
    pq.write_table(pa.table({"img": [1, 2], "label": [0, 1]}), path)
    with pytest.raises(DataError, match="must hold encoded images, it holds int64"):
        load("parquet", tmp_path, cache)
    write_parquet(path, [], [])
    with pytest.raises(DataError, match="have no rows"):
        load("parquet", tmp_path, cache)


def test_unreadable_rows_are_named(tmp_path: Path, cache: Path) -> None:
    data = [png(0), b"", None, png(3), b"text"]
    table = pa.table({"img": pa.array(data, pa.binary()), "label": [0, 1, 0, 1, 0]})
    pq.write_table(table, tmp_path / "train.parquet")
    message = r"3 of 5 images cannot be read: train\.parquet row 1, .* row 2, .* row 4; replace"
    with pytest.raises(DataError, match=message):
        load("parquet", tmp_path, cache)
    pq.write_table(table.slice(1, 2), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="none of 2 images"):
        load("parquet", tmp_path, cache)


def test_a_damaged_page_is_one_clear_error(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "train.parquet"
    write_parquet(path, list(range(40)), [0, 1] * 20)
    data = bytearray(path.read_bytes())
    data[50:3000] = bytes(2950)
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        load("parquet", tmp_path, cache, image_size=8)


# ------------------------------------------------------------------ whatever a folder holds


def mixed_folder(root: Path) -> list[str]:
    """A folder of two classes in every mode, kind and size; one file is cut short."""
    grey = Image.fromarray(pixels(0, 40)).convert("L")
    deep = Image.fromarray(np.linspace(0, 65535, 30 * 20).astype(np.uint16).reshape(20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    waves = Image.fromarray(pixels(1, 48)).resize((96, 64))
    made: dict[str, tuple[Image.Image, dict[str, Any]]] = {
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
    for name, (image, options) in made.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / name, "JPEG" if name.lower().endswith("jpeg") else None, **options)
    cut = root / "b" / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-400])
    return sorted(made)


def test_a_folder_of_every_mode_and_size(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "mixed"
    files = mixed_folder(root)
    spec = DatasetSpec(name="images", path=str(root), image_size=24)
    with pytest.raises(
        DataError, match=r"1 of 10 images cannot be read: b/cut\.jpg; replace .*--sk"
    ):
        load_dataset(spec, cache=cache)
    found = load_dataset(replace(spec, skip_unreadable=True), cache=cache)
    assert found.skipped == ("b/cut.jpg",)
    files.remove("b/cut.jpg")
    assert found.labels.tolist() == [name.startswith("b") for name in files]
    for name, image in zip(files, found.images, strict=True):
        assert np.array_equal(image, read_image(root / name, 24))  # as `quorum predict` has it
    originals = found.originals  # without the one that is cut short
    assert [originals.smallest, originals.median, originals.largest] == [(30, 20), *[(96, 64)] * 2]
    once = dict.fromkeys(("1", "CMYK", "I;16", "L", "LA"), 1)
    assert originals.modes == {"P": 2, "RGB": 2, **once}


def test_links_are_followed_but_not_in_circles(tmp_path: Path, cache: Path) -> None:
    write_images(tmp_path, ["set/a/1.png", "elsewhere/deep/2.png", "set/b/3.png"])
    root = tmp_path / "set"
    (root / "b" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "round").symlink_to(root)
    (root / "a" / "dangling.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"1 of 4 images cannot be read: a/dangling\.png"):
        load("imagefolder", root, cache)
    (root / "a" / "dangling.png").unlink()
    assert load("imagefolder", root, cache).labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", ["images", "cifar10", "digits"])
@pytest.mark.parametrize("layout", ["parquet", "folders"])
def test_what_the_folder_holds_decides(name: str, layout: str, tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "set"
    if layout == "parquet":
        write_parquet(root / "data" / "train-00000-of-00001.parquet", [0, 1], [0, 1])
    else:
        write_images(root, ["a/1.png", "b/2.png"])
    spec = DatasetSpec(name=name, path=str(root))
    resolved = resolve_dataset(spec)
    kind = "parquet" if layout == "parquet" else "imagefolder"
    assert resolved == DatasetSpec(name=kind, path=str(root), image_size=8)
    assert load_dataset(spec, cache=cache).fingerprint == (
        load_dataset(resolved, cache=cache).fingerprint
    )
    assert not any(path.name.startswith("cifar") for path in root.iterdir())
    assert resolve_dataset(resolved) == resolved


def test_cifar10_may_be_a_folder_of_parquet_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1], [0, 1])
    monkeypatch.setenv("QUORUM_DATA", str(tmp_path))
    resolved = resolve_dataset(DatasetSpec(name="cifar10"))
    assert (resolved.name, resolved.path) == ("parquet", str(tmp_path))


def test_the_size_may_have_to_be_affordable(tmp_path: Path) -> None:
    write_images(tmp_path, ["a/1.png", "b/2.png"], size=120)
    spec = DatasetSpec(name="images", path=str(tmp_path))
    assert resolve_dataset(spec).image_size == 64
    assert resolve_dataset(spec, affordable=50).image_size == 48
    assert resolve_dataset(spec, affordable=128).image_size == 120
    assert resolve_dataset(replace(spec, image_size=90), affordable=50).image_size == 90
    assert resolve_dataset(DatasetSpec()) == DatasetSpec()


def test_a_folder_that_holds_none(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        DataError, match=r"holds no data set: expected root/CLASS.*train\*\.parquet"
    ):
        load("images", tmp_path, cache)
    with pytest.raises(DataError, match="there is no folder"):
        load("images", tmp_path / "absent", cache)
    with pytest.raises(DataError, match=r"images needs a folder: set dataset\.path, or give"):
        load_dataset(DatasetSpec(name="images"), cache=cache)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.tif").touch()
    with pytest.raises(DataError, match=r"no images in .*; found 1 \.tif, 1 \.txt"):
        load("imagefolder", tmp_path, cache)


# ------------------------------------------------------------------ classes


def test_classes_must_be_the_same_in_test(tmp_path: Path, cache: Path) -> None:
    names = ["train/a/1.png", "train/b/2.png", "train/c/3.png", "test/a/4.png", "test/b/5.png",
             "test/d/6.png"]  # fmt: skip
    write_images(tmp_path, names)
    message = "different classes: c only in train; d only in test; .*dataset.leave_out"
    with pytest.raises(DataError, match=message):
        load("imagefolder", tmp_path, cache)
    spec = DatasetSpec(name="images", path=str(tmp_path), leave_out=("c", "d"))
    found = load_dataset(spec, cache=cache)
    assert found.class_names == ("a", "b")
    assert found.labels.tolist() == [0, 1, 0, 1]  # in the order of the paths, test first
    assert np.array_equal(found.images[2], pixels(0))


def test_classes_are_numbered_anew_when_one_is_left_out(tmp_path: Path, cache: Path) -> None:
    write_images(tmp_path, ["a/1.png", "b/2.png", "c/3.png"])
    spec = DatasetSpec(name="images", path=str(tmp_path), leave_out=("b",))
    found = load_dataset(spec, cache=cache)
    assert found.class_names == ("a", "c")
    assert found.labels.tolist() == [0, 1]
    with pytest.raises(
        DataError, match="leave_out names 'dog', which is no class; classes: a, b, c"
    ):
        load_dataset(replace(spec, leave_out=("dog",)), cache=cache)
    with pytest.raises(DataError, match=r"two or more distinct classes, got \['c'\]"):
        load_dataset(replace(spec, leave_out=("a", "b")), cache=cache)
    with pytest.raises(SpecError, match="leave_out is for data sets of files, which digits is not"):
        load_dataset(DatasetSpec(leave_out=("3",)), cache=cache)
