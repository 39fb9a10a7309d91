"""Counts of exact copies agree with comparing every pair of images."""

from collections import defaultdict
from dataclasses import asdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.duplicates import Duplicates, find_duplicates
from trainables.data.image_set import ImageSet


def image_set(contents: list[int], labels: list[int], is_test: list[bool] | None) -> ImageSet:
    """Return one 2×2 image per number; equal numbers are exact copies."""
    images = np.zeros((len(contents), 2, 2, 3), np.uint8)
    # Numbers fill the last bytes too: a digest must cover the whole image.
    images.reshape(-1, 12)[:, -4:] = np.array(contents, "<u4")[:, None].view(np.uint8)
    return ImageSet(
        name="set",
        images=images,
        labels=np.array(labels),
        class_names=("a", "b", "c"),
        is_test=None if is_test is None else np.array(is_test),
    )


def slow_duplicates(images: ImageSet) -> Duplicates:
    """Compare every image with every other."""
    is_test = [False] * len(images) if images.is_test is None else images.is_test.tolist()
    copies: dict[int, list[int]] = defaultdict(list)
    for i, image in enumerate(images.images):
        first = next(j for j in range(i + 1) if np.array_equal(images.images[j], image))
        copies[first].append(i)
    groups = [members for members in copies.values() if len(members) > 1]
    return Duplicates(
        groups=len(groups),
        images=sum(len(members) - 1 for members in groups),
        across_test=sum(
            not is_test[i] for members in groups if any(is_test[j] for j in members)
            for i in members
        ),
        conflicting_labels=sum(len({int(images.labels[i]) for i in g}) > 1 for g in groups),
    )  # fmt: skip


def test_duplicates_counted_by_hand() -> None:
    images = image_set(
        contents=[7, 7, 8, 9, 7, 9, 5],
        labels=[0, 0, 1, 1, 2, 1, 0],
        is_test=[False, False, False, False, True, False, True],
    )
    assert asdict(find_duplicates(images)) == {
        "groups": 2, "images": 3, "across_test": 2, "conflicting_labels": 1,
    }  # fmt: skip


@given(st.data())
def test_duplicates_agree_with_comparing_every_pair(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 12))
    contents = data.draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    labels = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    own = data.draw(st.none() | st.lists(st.booleans(), min_size=count, max_size=count))
    if own is not None and len(set(own)) == 1:
        own = None
    images = image_set(contents, labels, own)
    assert find_duplicates(images) == slow_duplicates(images)


def test_the_digits_have_no_duplicates() -> None:
    none = Duplicates(groups=0, images=0, across_test=0, conflicting_labels=0)
    assert find_duplicates(load_dataset(DatasetSpec())) == none
