"""The cache of decoded images: once, whole, and for everybody."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from trainables.datacache import cached_images, locked
from trainables.errors import DataError
from trainables.imageset import Contents, ImageSet, Source


class Folder:
    """A source of 12 made-up images that counts how often it is decoded."""

    def __init__(self, root: Path, *, fail_at: int | None = None, seconds: float = 0.0) -> None:
        self.root, self.fail_at, self.seconds, self.decoded = root, fail_at, seconds, 0
        root.mkdir(exist_ok=True)
        for name in ("a", "b"):
            if not (root / name).exists():
                (root / name).write_text(name)

    def source(self) -> Source:
        files = tuple(sorted(self.root.iterdir()))
        return Source(kind="test", name="test", root=self.root, files=files, read=self.read)

    def read(self, image_size: int | None) -> Contents:
        self.decoded += 1
        with (self.root.parent / "decoded.log").open("a") as log:
            log.write(f"{os.getpid()}\n")
        size = image_size or 6
        return Contents(
            image_size=size,
            labels=np.arange(12) % 3,
            class_names=("x", "y", "z"),
            is_test=np.arange(12) >= 9,
            groups=tuple("pq" * 6),
            batches=self.batches(size),
        )

    def batches(self, size: int) -> Iterator[np.ndarray]:
        time.sleep(self.seconds)
        for i in range(4):
            if i == self.fail_at:
                raise DataError("image 9 cannot be read")
            yield np.full((3, size, size, 3), 10 * i, np.uint8)


def get(folder: Folder, cache: Path, image_size: int | None = None) -> ImageSet:
    return cached_images(folder.source(), image_size=image_size, cache=cache)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "source")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_the_second_time_nothing_is_decoded(folder: Folder, cache: Path) -> None:
    first, second = get(folder, cache), get(folder, cache)
    assert folder.decoded == 1
    assert np.array_equal(first.images, second.images)
    assert first.images[:, 0, 0, 0].tolist() == np.repeat([0, 10, 20, 30], 3).tolist()
    assert first.labels.tolist() == [0, 1, 2] * 4
    assert first.class_names == ("x", "y", "z")
    assert second.is_test is not None
    assert second.is_test.sum() == 3
    assert second.groups == tuple("pq" * 6)
    assert second.fingerprint == first.fingerprint


def test_the_kept_fingerprint_is_that_of_the_content(folder: Folder, cache: Path) -> None:
    kept = get(folder, cache)
    fresh = ImageSet(
        name="fresh",
        images=np.array(kept.images),
        labels=kept.labels,
        class_names=kept.class_names,
        is_test=kept.is_test,
        groups=kept.groups,
    )
    assert kept.fingerprint == fresh.fingerprint


def test_images_are_mapped_not_read(folder: Folder, cache: Path) -> None:
    images = get(folder, cache).images
    assert isinstance(images.base, np.memmap)
    assert not images.flags.writeable


def test_every_change_of_the_source_makes_another_entry(folder: Folder, cache: Path) -> None:
    get(folder, cache)
    get(folder, cache, image_size=8)
    assert folder.decoded == 2
    (folder.root / "a").write_text("longer")
    get(folder, cache)
    assert folder.decoded == 3
    os.utime(folder.root / "b", ns=(1, 1))
    get(folder, cache)
    assert folder.decoded == 4
    (folder.root / "c").touch()
    get(folder, cache)
    assert folder.decoded == 5
    (folder.root / "c").unlink()
    get(folder, cache)
    assert folder.decoded == 5


def test_equal_listings_in_two_places_are_not_confused(tmp_path: Path, cache: Path) -> None:
    """Archives often set all times alike, and images of one size have files of one size."""
    one, other = Folder(tmp_path / "one"), Folder(tmp_path / "other")
    for root in (one.root, other.root):
        for name in ("a", "b"):
            os.utime(root / name, ns=(1, 1))
    get(one, cache)
    get(other, cache)
    assert other.decoded == 1


@pytest.mark.parametrize("fail_at", [0, 2])
def test_a_failed_decoding_leaves_nothing(fail_at: int, tmp_path: Path, cache: Path) -> None:
    broken = Folder(tmp_path / "source", fail_at=fail_at)
    with pytest.raises(DataError, match="image 9 cannot be read"):
        get(broken, cache)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    broken.fail_at = None
    assert len(get(broken, cache)) == 12


def test_too_few_images_are_noticed(
    folder: Folder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Folder, "batches", lambda self, size: iter(()))
    with pytest.raises(DataError, match="gave 0 images for 12 labels"):
        get(folder, cache)


def _load(root: Path, cache: Path, seconds: float) -> str:
    return get(Folder(root, seconds=seconds), cache).fingerprint


def test_of_several_threads_one_decodes(folder: Folder, cache: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: _load(folder.root, cache, 0.1), range(4)))
    assert len(set(found)) == 1
    assert len((tmp_path / "decoded.log").read_text().split()) == 1


@pytest.mark.slow
def test_of_several_processes_one_decodes(folder: Folder, cache: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(_load, [(folder.root, cache, 0.5)] * 2, chunksize=1)
    assert len(set(found)) == 1
    assert len((tmp_path / "decoded.log").read_text().split()) == 1


def _die_decoding(root: Path, cache: Path) -> None:
    class Dying(Folder):
        def batches(self, size: int) -> Iterator[np.ndarray]:
            yield from [*super().batches(size)][:2]
            os._exit(9)

    get(Dying(root), cache)


def test_a_killed_decoder_leaves_nothing_that_counts(folder: Folder, cache: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_die_decoding, args=(folder.root, cache)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    assert {path.suffix for path in cache.iterdir()} == {".lock", ".partial"}
    assert len(get(folder, cache)) == 12
    assert folder.decoded == 1
    assert {path.suffix for path in cache.iterdir()} == {".lock", ""}


@pytest.mark.parametrize("name", ["about.json", "labels.npy", "images.npy", "is_test.npy"])
@pytest.mark.parametrize("damage", ["cut", "gone", "text", "header"])
def test_a_damaged_entry_is_named(name: str, damage: str, folder: Folder, cache: Path) -> None:
    get(folder, cache)
    entry = next(path for path in cache.iterdir() if path.is_dir())
    file = entry / name
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    elif damage == "gone":
        file.unlink()
    elif damage == "header":
        file.write_bytes(file.read_bytes().replace(b"{", b"(", 1))
    else:
        file.write_text("text")
    with pytest.raises(DataError, match=f"{entry.name} are damaged; delete it"):
        get(folder, cache)


def test_a_cache_that_cannot_be_written(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be kept in .*; set QUORUM_CACHE to a folder"):
        get(folder, tmp_path / "file" / "cache")


def test_a_full_disk_is_one_clear_error(
    folder: Folder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"No space left on device; set QUORUM_CACHE"):
        get(folder, cache)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_vanished_file_is_named(folder: Folder, cache: Path) -> None:
    source = folder.source()
    (folder.root / "b").unlink()
    with pytest.raises(DataError, match="source/b cannot be read"):
        cached_images(source, image_size=None, cache=cache)


def test_where_the_cache_lies(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUORUM_CACHE", str(tmp_path / "named"))
    cached_images(folder.source(), image_size=None, cache=None)
    assert any((tmp_path / "named").iterdir())
    monkeypatch.delenv("QUORUM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cached_images(folder.source(), image_size=None, cache=None)
    assert any((tmp_path / "home" / ".cache" / "quorum").iterdir())


def test_a_lock_is_released_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="inside"), locked(tmp_path / "lock"):
        raise KeyError("inside")
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()
