"""Deep grey images are scaled by one range for the data set."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.seeds import numpy_generator
from trainables.data.grey_levels import (
    DEFAULT_LEVELS,
    Extremes,
    GreyLevels,
    extremes_of,
    to_eight_bits,
)


def slow_range(low: float, high: float, is_float: bool) -> tuple[float, float]:
    """Search for the smallest range of whole bits that holds both values.

    Floats up to 1.25 count as at most 1, and an undershoot of a tenth of the largest as 0.
    """
    if is_float:
        low = 0.0 if low >= -high / 10 else max(low, -1.0) if low >= -1.25 else low
        high = 1.0 if high <= 1.25 else high
    top = 1.0 if is_float else 255.0
    while top < high:
        top = 2 * top + 1
    bottom = 0.0
    while bottom > low:
        bottom = 2 * bottom if bottom else -1.0
    return bottom, top


@given(
    st.lists(st.tuples(st.integers(-70000, 2**31 - 1), st.integers(-70000, 2**31 - 1)), min_size=1)
)
def test_integers_get_the_smallest_range_of_whole_bits(pairs: list[tuple[int, int]]) -> None:
    ordered = [(min(pair), max(pair)) for pair in pairs]
    levels = GreyLevels.of_extremes([Extremes(low, high, False, high) for low, high in ordered])
    low, high = min(low for low, _ in ordered), max(high for _, high in ordered)
    assert levels.integer == slow_range(low, high, False)
    assert levels.floating == DEFAULT_LEVELS.floating


@given(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32))
def test_floats_get_one_or_whole_bits(first: float, second: float) -> None:
    low, high = min(first, second), max(first, second)
    levels = GreyLevels.of_extremes([Extremes(low, high, True, high)])
    assert levels.floating == slow_range(low, high, True)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@given(st.integers(0, 2**16 - 1), st.integers(8, 16))
def test_pixels_are_scaled_by_the_range_not_by_the_image(
    dtype: type, value: int, bits: int
) -> None:
    levels = GreyLevels(integer=(0, 2**bits - 1), floating=(0, 2**bits - 1))
    image = Image.fromarray(np.full((2, 3), value, dtype))
    expected = min(255, math.floor(255 * value / (2**bits - 1) + 0.5))
    scaled = np.asarray(to_eight_bits(image, levels))
    assert np.abs(scaled.astype(int) - expected).max() <= 1
    assert (scaled == scaled[0, 0]).all()


def test_values_that_are_not_numbers_are_black() -> None:
    values = np.array([[np.nan, 0.5], [np.inf, -np.inf]], np.float32)
    image = Image.fromarray(values)
    assert extremes_of(image) == Extremes(0.5, 0.5, True, 0.5)
    scaled = to_eight_bits(image, GreyLevels(floating=(0, 1)))
    assert np.asarray(scaled).tolist() == [[0, 128], [255, 0]]
    assert extremes_of(Image.fromarray(np.full((2, 2), np.nan, np.float32))) is not None


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "CMYK", "LA"])
def test_other_images_have_no_extremes(mode: str) -> None:
    assert extremes_of(Image.new(mode, (2, 2))) is None


def test_ranges_survive_json() -> None:
    levels = GreyLevels(integer=(-1024.0, 4095.0), floating=(0.0, 1.0))
    assert GreyLevels.from_mapping(levels.to_mapping()) == levels


@pytest.mark.parametrize(("bits", "dtype"), [(9, np.uint16), (12, np.uint16), (12, np.int32)])
def test_a_few_saturated_pixels_do_not_make_a_set_dark(bits: int, dtype: type) -> None:
    rng = numpy_generator(0, "hot")
    images: np.ndarray = rng.integers(0, 2**bits, (5, 64, 64)).astype(dtype)
    images[2, 5, 7] = images[3, 0, 0] = 65535
    extremes = [extremes_of(Image.fromarray(image)) for image in images]
    levels = GreyLevels.of_extremes([own for own in extremes if own is not None])
    assert levels.integer == (0, 2**bits - 1)


def test_bright_spots_in_most_images_count() -> None:
    """Single molecules, stars: a defect is rare."""
    image = np.full((64, 64), 100, np.uint16)
    image[5, 5:9] = 60000
    own = extremes_of(Image.fromarray(image))
    assert own is not None
    assert GreyLevels.of_extremes([own] * 5).integer == (0, 65535)


@pytest.mark.parametrize(("high", "top"), [(1.5, 3), (3.0, 3), (9.0, 15), (200.0, 255)])
def test_floats_of_few_units_are_not_made_black(high: float, top: float) -> None:
    own = extremes_of(Image.fromarray(np.linspace(0, high, 64, dtype=np.float32).reshape(8, 8)))
    assert own is not None
    assert GreyLevels.of_extremes([own]).floating == (0, top)


def test_bright_spots_of_more_than_a_thousandth_of_an_image_count() -> None:
    image = np.full((64, 64), 100, np.uint16)
    image[:3, :3] = 60000
    own = extremes_of(Image.fromarray(image))
    assert own is not None
    assert GreyLevels.of_extremes([own]).integer == (0, 65535)


@pytest.mark.parametrize("high", [0.2, 1.0, 1.001, 1.25])
def test_floats_that_overshoot_one_a_little_are_shares(high: float) -> None:
    values = np.linspace(-0.01 * high, high, 64, dtype=np.float32).reshape(8, 8)
    own = extremes_of(Image.fromarray(values))
    assert own is not None
    assert GreyLevels.of_extremes([own]).floating == (0, 1)
