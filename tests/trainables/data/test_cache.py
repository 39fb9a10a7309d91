"""The cache decodes each source once, stores it whole, and maps it into every process."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from tests.docs import ROOT
from trainables.data.cache import (
    cached_images,
    find_images,
    store_images,
    stored_images,
)
from trainables.data.decoding import Contents, DecodeOptions, Source
from trainables.data.digests import pixel_digests
from trainables.data.image_set import ImageSet
from trainables.data.pixels import DecodedBatch
from trainables.data.resizing import ResizeRequest, Resizing


class Folder:
    """A source of 12 uniform images that counts how often it is decoded."""

    def __init__(self, root: Path, *, fail_at: int | None = None, seconds: float = 0.0) -> None:
        self.root, self.fail_at, self.seconds, self.decoded = root, fail_at, seconds, 0
        root.mkdir(exist_ok=True)
        for name in ("a", "b"):
            if not (root / name).exists():
                (root / name).write_text(name)

    def source(self) -> Source:
        files = tuple(sorted(self.root.iterdir()))
        return Source(
            kind="test", name="test", root=self.root, files=files, read=self.read,
            short_sides=lambda: [6],
        )  # fmt: skip

    def read(self, resizing: Resizing) -> Contents:
        self.decoded += 1
        with (self.root.parent / "decoded.log").open("a") as log:
            log.write(f"{os.getpid()}\n")
        return Contents(
            labels=np.arange(12) % 3,
            class_names=("x", "y", "z"),
            is_test=np.arange(12) >= 6,
            groups=tuple("pq" * 6),
            batches=self.batches(resizing.size),
        )

    def batches(self, size: int) -> Iterator[DecodedBatch]:
        time.sleep(self.seconds)
        for i in range(4):
            if i == self.fail_at:
                raise DataError("image 9 cannot be read")
            yield DecodedBatch(images=np.full((3, size, size, 3), 10 * i, np.uint8), broken={})


def get(folder: Folder, cache: Path, image_size: int = 6, **options: Any) -> ImageSet:
    decoding = DecodeOptions(resizing=Resizing(size=image_size), **options)
    return cached_images(folder.source(), decoding, cache=cache)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "source")


def test_a_second_load_decodes_nothing(folder: Folder, cache: Path) -> None:
    first, second = get(folder, cache), get(folder, cache)
    assert folder.decoded == 1
    assert np.array_equal(first.images, second.images)
    assert first.images[:, 0, 0, 0].tolist() == np.repeat([0, 10, 20, 30], 3).tolist()
    assert first.labels.tolist() == [0, 1, 2] * 4
    assert first.class_names == ("x", "y", "z")
    assert second.is_test is not None
    assert second.is_test.sum() == 6
    assert second.groups == tuple("pq" * 6)
    assert second.fingerprint == first.fingerprint


def test_the_cached_fingerprint_matches_the_content(folder: Folder, cache: Path) -> None:
    cached = get(folder, cache)
    fresh = ImageSet(
        name="fresh",
        images=np.array(cached.images),
        labels=cached.labels,
        class_names=cached.class_names,
        is_test=cached.is_test,
        groups=cached.groups,
    )
    assert cached.fingerprint == fresh.fingerprint


def test_images_are_memory_mapped_read_only(folder: Folder, cache: Path) -> None:
    images = get(folder, cache).images
    assert isinstance(images.base, np.memmap)
    assert not images.flags.writeable


def test_every_change_to_the_source_makes_a_new_entry(folder: Folder, cache: Path) -> None:
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


def test_equal_listings_in_two_folders_are_distinct(tmp_path: Path, cache: Path) -> None:
    """Archives often set all times alike, and uncompressed images have files of one size."""
    first, second = Folder(tmp_path / "first"), Folder(tmp_path / "second")
    for root in (first.root, second.root):
        for name in ("a", "b"):
            os.utime(root / name, ns=(1, 1))
    get(first, cache)
    get(second, cache)
    assert second.decoded == 1


@pytest.mark.parametrize("fail_at", [0, 2])
def test_failed_decoding_leaves_no_entry(fail_at: int, tmp_path: Path, cache: Path) -> None:
    broken = Folder(tmp_path / "source", fail_at=fail_at)
    with pytest.raises(DataError, match="image 9 cannot be read"):
        get(broken, cache)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    broken.fail_at = None
    assert len(get(broken, cache)) == 12


def test_too_few_images_are_refused(folder: Folder, cache: Path) -> None:
    class Empty(Folder):
        def batches(self, size: int) -> Iterator[DecodedBatch]:
            return iter(())

    with pytest.raises(DataError, match="0 images for 12 labels"):
        get(Empty(folder.root), cache)


def _load(root: Path, cache: Path, seconds: float) -> str:
    return get(Folder(root, seconds=seconds), cache).fingerprint


def test_only_one_of_several_threads_decodes(folder: Folder, cache: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        fingerprints = list(threads.map(lambda _: _load(folder.root, cache, 0.1), range(4)))
    assert len(set(fingerprints)) == 1
    assert len((tmp_path / "decoded.log").read_text().split()) == 1


@pytest.mark.slow
def test_only_one_of_several_processes_decodes(folder: Folder, cache: Path, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        fingerprints = pool.starmap(_load, [(folder.root, cache, 0.5)] * 2, chunksize=1)
    assert len(set(fingerprints)) == 1
    assert len((tmp_path / "decoded.log").read_text().split()) == 1


def _die_decoding(root: Path, cache: Path) -> None:
    class Dying(Folder):
        def batches(self, size: int) -> Iterator[DecodedBatch]:
            yield from [*super().batches(size)][:2]
            os._exit(9)

    get(Dying(root), cache)


def test_a_killed_decoder_leaves_only_files_that_the_next_one_replaces(
    folder: Folder, cache: Path
) -> None:
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
    with pytest.raises(DataError, match=f"{entry.name} are damaged .*delete"):
        get(folder, cache)


def test_an_entry_whose_images_were_replaced_is_named(folder: Folder, cache: Path) -> None:
    """A restored backup, or a file system that lost unwritten data, leaves such an entry."""
    images = get(folder, cache)
    entry = next(path for path in cache.iterdir() if path.is_dir())
    fresh = entry / "fresh.npy"
    np.save(fresh, np.zeros_like(images.images))
    fresh.replace(entry / "images.npy")
    with pytest.raises(DataError, match=r"images\.npy does not hold"):
        get(folder, cache)
    assert images.images.any()  # the old file stays mapped


def test_images_are_found_by_fingerprint_without_their_files(folder: Folder, cache: Path) -> None:
    """A worker that starts late maps the images that the run started with."""
    images = get(folder, cache)
    (folder.root / "a").unlink()
    loaded = find_images(images.fingerprint, cache=cache)
    assert loaded is not None
    assert np.array_equal(loaded.images, images.images)
    assert find_images("sha256:0000000000000000", cache=cache) is None


def test_an_entry_of_an_older_version_is_skipped(folder: Folder, cache: Path) -> None:
    """Such an entry has another key but the same fingerprint, and sorts first here."""
    images = get(folder, cache)
    (entry,) = (path for path in cache.iterdir() if path.is_dir())
    old = shutil.copytree(entry, cache / "folder-0")
    about = json.loads((old / "about.json").read_text())
    del about["originals"]
    (old / "about.json").write_text(json.dumps(about))
    loaded = find_images(images.fingerprint, cache=cache)
    assert loaded is not None
    assert np.array_equal(loaded.images, images.images)
    shutil.rmtree(entry)
    assert find_images(images.fingerprint, cache=cache) is None


def test_each_size_has_its_entry_and_all_have_one_fingerprint(folder: Folder, cache: Path) -> None:
    class Resized(Folder):
        def batches(self, size: int) -> Iterator[DecodedBatch]:
            for batch, original in zip(super().batches(size), super().batches(20), strict=True):
                yield batch._replace(digests=pixel_digests(original.images))

    resized = Resized(folder.root)
    small, large = get(resized, cache, 6), get(resized, cache, 8)
    assert resized.decoded == 2
    assert small.fingerprint == large.fingerprint != get(Folder(folder.root), cache, 9).fingerprint
    for images in (small, large):
        size = images.image_size
        loaded = find_images(images.fingerprint, cache=cache, asked=ResizeRequest(size=size))
        assert loaded is not None
        assert loaded.image_size == size
        assert np.array_equal(loaded.pixel_keys, images.pixel_keys)
    assert find_images(small.fingerprint, cache=cache, asked=ResizeRequest(size=7)) is None


def test_a_cache_that_cannot_be_written_is_one_clear_error(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written to .*QUORUM_CACHE"):
        get(folder, tmp_path / "file" / "cache")


def test_a_full_disk_is_one_clear_error(
    folder: Folder, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"No space left .* GB .*QUORUM_CACHE"):
        get(folder, cache)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_the_cache_is_in_quorum_cache_or_the_home_folder(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUORUM_CACHE", str(tmp_path / "named"))
    cached_images(folder.source(), DecodeOptions(resizing=Resizing(size=6)), cache=None)
    assert any((tmp_path / "named").iterdir())
    monkeypatch.delenv("QUORUM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cached_images(folder.source(), DecodeOptions(resizing=Resizing(size=6)), cache=None)
    assert any((tmp_path / "home" / ".cache" / "quorum").iterdir())


def test_images_of_user_functions_are_stored_for_other_processes(cache: Path) -> None:
    images = ImageSet(
        name="mine",
        images=np.random.default_rng(0).integers(0, 256, (30, 5, 5, 3), dtype=np.uint8),
        labels=np.arange(30) % 2,
        class_names=("a", "b"),
        groups=tuple("xyz" * 10),
    )
    assert stored_images(images.fingerprint, cache=cache) is None
    for stored in (
        store_images(images, cache=cache),
        stored_images(images.fingerprint, cache=cache),
    ):
        assert stored is not None
        assert isinstance(stored.images.base, np.memmap)
        assert np.array_equal(stored.images, images.images)
        assert (stored.name, stored.groups) == ("mine", images.groups)
        assert stored.fingerprint == images.fingerprint
    store_images(images, cache=cache)
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


@given(st.integers(1, 1200), st.data())
def test_the_array_on_disk_is_shortened_by_skipped_images(rows: int, data: st.DataObject) -> None:
    """The header keeps its length, however many digits the two row counts have."""
    kept = data.draw(st.integers(1, rows))
    pixels = np.arange(rows * 12).astype(np.uint8).reshape(rows, 2, 2, 3)
    broken = {i: f"image {i}" for i in range(kept, rows)}

    def read(resizing: Resizing) -> Contents:
        batches = iter([DecodedBatch(images=pixels, broken=broken)])
        return Contents(labels=np.arange(rows) % 2, class_names=("a", "b"), batches=batches)

    options = DecodeOptions(resizing=Resizing(size=2), skip_unreadable=True)
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name)
        source = Source(
            kind="test", name="t", root=cache, files=(), short_sides=lambda: [2], read=read
        )
        images = cached_images(source, options, cache=cache)
        assert np.array_equal(images.images, pixels[:kept])
        (array,) = cache.glob("*/images.npy")
        assert array.stat().st_size == 128 + kept * 12


def test_skipped_images_are_named_on_every_load(folder: Folder, cache: Path) -> None:
    class Broken(Folder):
        def batches(self, size: int) -> Iterator[DecodedBatch]:
            for i, batch in enumerate(super().batches(size)):
                yield DecodedBatch(images=batch.images, broken={1: f"image {3 * i + 1}"})

    broken = Broken(folder.root)
    with pytest.raises(
        DataError, match=r"4 of 12 images .*: image 1, image 4, .*--skip-unreadable"
    ):
        get(broken, cache)
    for _ in range(2):
        loaded = get(broken, cache, skip_unreadable=True)
        assert loaded.skipped == ("image 1", "image 4", "image 7", "image 10")
        assert loaded.labels.tolist() == [0, 2] * 4
        assert loaded.images[:, 0, 0, 0].tolist() == [0, 0, 10, 10, 20, 20, 30, 30]
        assert loaded.groups == tuple("pp" + "qq" + "pp" + "qq")
        assert loaded.is_test is not None
        assert loaded.is_test.tolist() == [False] * 4 + [True] * 4
        assert loaded.source_sizes.modes == {"RGB": 8}  # formats are unknown: assumed unresized
    assert broken.decoded == 2


def test_source_sizes_are_stored_without_classes_that_are_left_out(
    folder: Folder, cache: Path
) -> None:
    class Resized(Folder):
        def batches(self, size: int) -> Iterator[DecodedBatch]:
            for i, batch in enumerate(super().batches(size)):
                yield batch._replace(formats=[(10 + i, 20, "L"), (50, 40, "RGB"), (1, 1, "P")])

    options = DecodeOptions(resizing=Resizing(size=6), leave_out=("z",))  # every third image
    for _ in range(2):
        sizes = cached_images(Resized(folder.root).source(), options, cache=cache).source_sizes
        assert (sizes.smallest, sizes.median, sizes.largest) == ((10, 20), (13, 20), (50, 40))
        assert (sizes.sizes, sizes.modes) == (5, {"L": 4, "RGB": 4})


def test_progress_ends_at_one(folder: Folder, cache: Path) -> None:
    steps: list[tuple[float, str]] = []
    cached_images(
        folder.source(),
        DecodeOptions(resizing=Resizing(size=6)),
        cache=cache,
        progress=lambda *step: steps.append(step),
    )
    assert [share for share, _ in steps] == [0.25, 0.5, 0.75, 1.0]
    assert "3 of 12 images" in steps[0][1]


BOUNDED = """
import sys, resource
from pathlib import Path
import numpy as np, torch
from trainables.data.cache import cached_images
from trainables.data.decoding import DecodeOptions
from trainables.data.resizing import ResizeRequest, Resizing
from trainables.data.decoding import Contents, Source
from trainables.data.pixels import DecodedBatch
from trainables.prediction import PixelSource
from trainables.recipe import Numerics

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

COUNT, BATCH = 4096, 64
def read(resizing):
    rng = np.random.default_rng(0)
    shape = (BATCH, resizing.size, resizing.size, 3)
    batches = (rng.integers(0, 256, shape, np.uint8) for _ in range(COUNT // BATCH))
    return Contents(labels=np.arange(COUNT) % 2, class_names=("a", "b"),
                    batches=(DecodedBatch(images=batch, broken={}) for batch in batches))
root = Path(sys.argv[1])
source = Source(kind="test", name="t", root=root, files=(), short_sides=lambda: [128], read=read)
torch.zeros(8).sum()
before = anonymous()
images = cached_images(source, DecodeOptions(resizing=Resizing(size=128)), cache=root)
pixels = PixelSource(images.images, np.arange(COUNT), Numerics())
most = 0
for start in range(0, COUNT, BATCH):
    pixels.batch(torch.arange(start, start + BATCH)).mean()
    most = max(most, anonymous() - before)
print(images.images.nbytes, most)
"""


@pytest.mark.slow
def test_large_sets_take_little_memory(tmp_path: Path) -> None:
    """Decode, hash and read 201 MB of pixels within 60 MB of memory."""
    code = [sys.executable, "-c", BOUNDED, str(tmp_path)]
    result = subprocess.run(code, capture_output=True, text=True, check=True, cwd=ROOT)
    total, most = map(int, result.stdout.split())
    assert total == 4096 * 128 * 128 * 3
    assert most < 60e6
