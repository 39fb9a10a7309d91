"""Copies in several classes, and on both sides of test, are counted and named."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.duplicate_notes import duplicate_notes


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2), st.booleans()), min_size=1))
def test_counts_equal_a_slow_count(images: list[tuple[int, int, bool]]) -> None:
    pixels, labels, in_test = zip(*images, strict=True)
    found = {
        note.topic: note
        for note in duplicate_notes(
            np.array(pixels), np.array(labels), np.array(in_test), lambda i: f"{i}.png"
        )
    }
    mixed = [
        any(p == q and labels[i] != labels[j] for j, q in enumerate(pixels))
        for i, p in enumerate(pixels)
    ]
    leaked = [
        not in_test[i] and any(p == q and in_test[j] for j, q in enumerate(pixels))
        for i, p in enumerate(pixels)
    ]
    for topic, expected, values in (
        ("two_classes", mixed, labels),
        ("train_and_test", leaked, in_test),
    ):
        assert (topic in found) == any(expected)
        if not any(expected):
            continue
        assert found[topic].count == sum(expected)
        for pair in found[topic].examples:
            i, j = (int(name.removesuffix(".png")) for name in pair.split(" = "))
            assert pixels[i] == pixels[j]
            assert values[i] != values[j]


def test_a_set_without_its_own_test_has_no_copies_across_it() -> None:
    zeros = np.zeros(3, np.int64)
    assert list(duplicate_notes(zeros, zeros, None, str)) == []
    (note,) = duplicate_notes(zeros, np.array([0, 0, 1]), None, "image {}".format)
    assert (note.topic, note.count, note.examples) == ("two_classes", 3, ("image 0 = image 2",))
