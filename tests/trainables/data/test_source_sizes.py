"""Sizes and colour modes of the images as they were."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.source_sizes import Original, Originals


def slow(found: dict[Original, int]) -> tuple[object, ...]:
    """Every image by itself."""
    each = [original for original, count in found.items() for _ in range(count)]
    sizes = sorted(
        ((width, height) for width, height, _ in each),
        key=lambda size: (size[0] * size[1], size[0]),
    )
    modes = {mode: sum(mode == other for *_, other in each) for _, _, mode in each}
    return sizes[0], sizes[(len(sizes) - 1) // 2], sizes[-1], len(set(sizes)), modes


@given(
    st.dictionaries(
        st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from(["L", "P", "RGB"])),
        st.integers(1, 5),
        min_size=1,
    )
)
def test_the_summary_is_that_of_all_images(found: dict[Original, int]) -> None:
    originals = Originals.of(found)
    got = (
        originals.smallest, originals.median, originals.largest, originals.sizes,
        dict(originals.modes),
    )  # fmt: skip
    assert got == slow(found)
    assert sorted(originals.modes.values(), reverse=True) == list(originals.modes.values())
    assert Originals.from_mapping(json.loads(json.dumps(originals.to_mapping()))) == originals


def test_sizes_stand_in_order_of_their_area() -> None:
    originals = Originals.of({(100, 10, "RGB"): 2, (30, 30, "L"): 3, (10, 100, "RGB"): 1})
    assert originals.smallest == (30, 30)
    assert originals.median == (30, 30)
    assert originals.largest == (100, 10)  # 10×100 has the same area and is narrower
    assert originals.modes == {"L": 3, "RGB": 3}
    with pytest.raises(ValueError, match="there must be an image of some size, got none"):
        Originals.of({})
