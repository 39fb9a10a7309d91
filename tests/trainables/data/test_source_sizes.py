"""Summaries of the sizes and colour modes of source images."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.source_sizes import SourceFormat, SourceSizes


def slow(counts: dict[SourceFormat, int]) -> tuple[object, ...]:
    """Compute the summary from a list of all images."""
    formats = [source_format for source_format, n in counts.items() for _ in range(n)]
    ordered = sorted(
        ((width, height) for width, height, _ in formats),
        key=lambda size: (size[0] * size[1], size[0]),
    )
    modes = {mode: sum(mode == other for *_, other in formats) for _, _, mode in formats}
    return ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1], len(set(ordered)), modes


@given(
    st.dictionaries(
        st.tuples(st.integers(1, 6), st.integers(1, 6), st.sampled_from(["L", "P", "RGB"])),
        st.integers(1, 5),
        min_size=1,
    )
)
def test_the_summary_agrees_with_a_list_of_all_images(counts: dict[SourceFormat, int]) -> None:
    sizes = SourceSizes.from_counts(counts)
    got = (
        sizes.smallest, sizes.median, sizes.largest, sizes.sizes,
        dict(sizes.modes),
    )  # fmt: skip
    assert got == slow(counts)
    assert sorted(sizes.modes.values(), reverse=True) == list(sizes.modes.values())
    assert SourceSizes.from_mapping(json.loads(json.dumps(sizes.to_mapping()))) == sizes


def test_sizes_are_ordered_by_area_then_width() -> None:
    sizes = SourceSizes.from_counts({(100, 10, "RGB"): 2, (30, 30, "L"): 3, (10, 100, "RGB"): 1})
    assert sizes.smallest == (30, 30)
    assert sizes.median == (30, 30)
    assert sizes.largest == (100, 10)  # 10×100 has the same area and is narrower
    assert sizes.modes == {"L": 3, "RGB": 3}
    with pytest.raises(ValueError, match="at least one image, got none"):
        SourceSizes.from_counts({})
