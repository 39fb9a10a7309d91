"""Image sets check their fields, and fingerprints identify their content."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from tests.trainables.data.samples import pixels
from trainables.data.image_set import ImageSet, fingerprint_of


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
        ({"labels": np.array([0, 1, 2, 0])}, "labels .* 0 … 1, got 2"),
        ({"labels": np.array([0, -1, 1, 0])}, "labels .* 0 … 1, got -1"),
        ({"class_names": ("a",)}, r"distinct classes, got \['a'\]"),
        ({"class_names": ("a", "a")}, "distinct classes, got 'a' more than once"),
        ({"is_test": np.zeros(4, np.int64)}, r"is_test must be bool \[4\]"),
        ({"is_test": np.ones(4, np.bool_)}, "marks every image"),
        ({"is_test": np.zeros(4, np.bool_)}, "marks no image"),
        ({"groups": ("p", "q")}, "groups .* got 2 for 4"),
    ],
)
def test_impossible_fields_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        image_set(**changes)


def test_the_fingerprint_depends_on_content_alone() -> None:
    first = image_set()
    assert first.fingerprint.startswith("sha256:")
    assert len(first.fingerprint) == len("sha256:") + 16
    assert image_set(name="other").fingerprint == first.fingerprint
    strided = np.repeat(first.images, 2, axis=0)[::2]
    assert image_set(images=strided).fingerprint == first.fingerprint
    assert image_set(fingerprint="sha256:known").fingerprint == "sha256:known"


@pytest.mark.parametrize(
    "changes",
    [
        {"images": np.stack([pixels(i) for i in (0, 1, 2, 4)])},
        {"images": np.stack([pixels(i) for i in (1, 0, 2, 3)])},
        {"labels": np.array([0, 1, 1, 1])},
        {"class_names": ("a", "c")},
        {"is_test": np.array([True, False, False, False])},
        {"is_val": np.array([True, False, False, False])},
        {"groups": ("", "", "", "")},
    ],
)
def test_every_part_of_the_content_changes_the_fingerprint(changes: dict[str, Any]) -> None:
    assert image_set(**changes).fingerprint != image_set().fingerprint


@given(st.integers(0, 3), st.integers(0, 7), st.integers(0, 7), st.integers(0, 2))
def test_every_pixel_changes_the_fingerprint(n: int, y: int, x: int, c: int) -> None:
    images = image_set().images.copy()
    images[n, y, x, c] ^= 1
    assert image_set(images=images).fingerprint != image_set().fingerprint


def test_the_fingerprint_depends_on_canonical_pixels_not_on_the_size() -> None:
    images = image_set()
    small = image_set(images=images.images[:, ::2, ::2], digests=images.digests)
    assert small.fingerprint == images.fingerprint == fingerprint_of(small)
    assert image_set(images=small.images).fingerprint != images.fingerprint
