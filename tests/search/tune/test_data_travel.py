"""Images reach workers through Ray's object store, or as parts of the driver's cache."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from common.errors import DataError
from search.timetable.capacity import Capacity, Node
from search.tune.data_travel import SENT_BYTES, ImageParts, sent_images
from trainables.data.cache import (
    entry_parts,
    find_entry,
    layout_of,
    received_images,
    store_images,
)
from trainables.data.image_set import ImageSet, LargeCopies

SIDE = 64


def images_of(count: int, *, large: bool = False) -> ImageSet:
    rng = np.random.default_rng(count)
    pixels = rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    copies = LargeCopies(pixels=pixels, aspects=np.ones(count, np.float32)) if large else None
    return ImageSet(
        name="noise",
        images=pixels,
        labels=np.arange(count, dtype=np.int64) % 2,
        class_names=("even", "odd"),
        groups=tuple(f"patient {index}" for index in range(count)),
        large=copies,
    )


SMALL, LARGE = images_of(20), images_of(SENT_BYTES // SIDE**2 // 3 + 1)


def put(value: Any) -> Any:
    """Stand in for ray.put."""
    return value


def cluster(store_bytes: float) -> Capacity:
    return Capacity(nodes=(Node(cores=1, store_bytes=1e12), Node(cores=1, store_bytes=store_bytes)))


def test_small_images_are_sent_and_large_ones_mapped_on_one_machine(tmp_path: Path) -> None:
    assert sent_images(SMALL, cluster=None, cache=tmp_path, put=put) is SMALL
    assert sent_images(LARGE, cluster=None, cache=tmp_path, put=put) is None


def test_images_that_fit_into_the_smallest_store_of_a_cluster_are_sent(tmp_path: Path) -> None:
    sent = sent_images(LARGE, cluster=cluster(1e9), cache=tmp_path, put=put)
    assert isinstance(sent, ImageSet)
    assert type(sent.images) is np.ndarray  # Ray copies nothing of such an array
    assert sent.fingerprint == LARGE.fingerprint


@pytest.mark.parametrize("large", [False, True])
def test_other_images_arrive_in_parts_once_per_cache(large: bool, tmp_path: Path) -> None:
    images = images_of(3000, large=large)
    store_images(images, cache=tmp_path / "driver")
    layout = layout_of(images)
    entry = find_entry(images.fingerprint, layout, cache=tmp_path / "driver")
    assert entry is not None
    fetched: list[str] = []

    def parts() -> Any:
        for name, part in entry_parts(entry, most_bytes=1_000_000):
            assert part.nbytes <= 1_000_000
            fetched.append(name)
            yield name, part

    arrived = received_images(images.fingerprint, layout, parts, cache=tmp_path / "node")
    for field in ("images", "labels", "digests"):
        assert np.array_equal(getattr(arrived, field), getattr(images, field))
    assert arrived.groups == images.groups
    assert (arrived.large is not None) == large
    assert fetched.count("images.npy") == -(-(images.images.nbytes + 128) // 1_000_000)
    before = len(fetched)
    received_images(images.fingerprint, layout, parts, cache=tmp_path / "node")
    assert len(fetched) == before


def test_images_of_another_size_are_not_taken_for_these(tmp_path: Path) -> None:
    """Images have one fingerprint at every size."""
    smaller = replace(LARGE, images=LARGE.images[:, ::2, ::2].copy())
    assert smaller.fingerprint == LARGE.fingerprint
    store_images(smaller, cache=tmp_path)
    sent = sent_images(LARGE, cluster=cluster(1e6), cache=tmp_path, put=put)
    assert sent.layout == layout_of(LARGE)
    pixels = sum(len(part) for name, part in sent.parts if name == "images.npy")
    assert pixels > LARGE.images.nbytes


def test_a_transfer_that_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    store_images(SMALL, cache=tmp_path / "driver")
    layout = layout_of(SMALL)
    entry = find_entry(SMALL.fingerprint, layout, cache=tmp_path / "driver")
    assert entry is not None
    whole = list(entry_parts(entry, most_bytes=10_000))

    def broken() -> Any:
        yield from whole[:3]
        raise DataError("the images did not arrive: the driver's node is lost")

    with pytest.raises(DataError, match="did not arrive"):
        received_images(SMALL.fingerprint, layout, broken, cache=tmp_path / "node")
    arrived = received_images(SMALL.fingerprint, layout, lambda: whole, cache=tmp_path / "node")
    assert np.array_equal(arrived.images, SMALL.images)


def test_other_images_than_announced_are_refused(tmp_path: Path) -> None:
    store_images(SMALL, cache=tmp_path / "driver")
    layout = layout_of(SMALL)
    entry = find_entry(SMALL.fingerprint, layout, cache=tmp_path / "driver")
    assert entry is not None
    shutil.copytree(entry, tmp_path / "copy")
    with pytest.raises(DataError, match="not sha256:other"):
        received_images(
            "sha256:other",
            layout,
            lambda: entry_parts(tmp_path / "copy", most_bytes=10_000),
            cache=tmp_path / "node",
        )


def test_equal_parts_are_received_once_by_a_process() -> None:
    one, two = (ImageParts(fingerprint="f", layout=layout_of(SMALL), parts=(("a", 1),)),) * 2
    assert hash(one) == hash(two)
    assert one == two


@pytest.mark.slow
def test_a_worker_fills_its_cache_from_parts(tmp_path: Path) -> None:
    from search.tune.session import ray_session

    with ray_session(cpus=1, folder=tmp_path, object_store_bytes=400_000_000):
        sent = sent_images(LARGE, cluster=cluster(1e6), cache=tmp_path / "driver")
        assert isinstance(sent, ImageParts)

        @ray.remote
        def arrive(source: Any) -> tuple[str, int]:
            images = source.receive(tmp_path / "node")
            return images.fingerprint, int(images.images.sum())

        expected = LARGE.fingerprint, int(LARGE.images.sum())
        assert ray.get(arrive.remote(sent)) == expected
