"""Scale grey images of more than 8 bits by one range for a whole data set.

A 16-bit file may hold 12 bits (microscopes, X-rays), so that dividing by 257 would make it nearly
black; and a range for each image would turn a dark image into a bright one. So the data set's own
extremes decide, once: integers from 0 to the smallest 2^b − 1 that holds them all (b is at least
8), and floats from 0 to the smallest 2^b − 1, where b is at least 1, and up to OVERSHOOT counts as
1. A negative value moves the lower end from 0 to −2^b, unless it is a float that undershoots by at
most a tenth of the largest. Saturated pixels do not decide: let c be the largest value that is left
when the brightest HOT_SHARE of each image's pixels is dropped. If some images, but fewer than half,
exceed HOT · c, the range is chosen for c, and larger values are clipped. The range is stored with
the decoded images and in the exported model's card, so that `quorum predict` uses the same.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from PIL import Image

from common.formats import plural
from trainables.data.notes import Note

FEWEST_BITS = 8

OVERSHOOT = 1.25
"""Largest float that counts as 1, e.g. after resampling."""

HOT = 8
"""Ratio to nearly all other values above which a value is taken for a defect. Without this rule,
one saturated pixel would make a set of 12-bit images nearly black."""

HOT_SHARE = 0.001
"""Share of an image's pixels that may be such defects; at least one."""

Range = tuple[float, float]
"""The values that become black and white."""


class Extremes(NamedTuple):
    """The least and the largest finite value of one deep grey image, or of several."""

    low: float
    high: float
    is_float: bool
    common: float
    """The largest value without the HOT_SHARE of the pixels that are largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GreyLevels:
    """The ranges that become 0 … 255; values beyond are clipped."""

    integer: Range = (0, 65535)
    """For 16-bit and 32-bit integers."""
    floating: Range = (0, 255)
    """For floats."""

    @classmethod
    def of_extremes(cls, extremes: Iterable[Extremes]) -> Self:
        """Return the ranges of a data set; the defaults where it has no such images."""
        ranges: dict[str, Range] = {}
        for name, is_float in (("integer", False), ("floating", True)):
            values = [own for own in extremes if own.is_float == is_float]
            if values:
                low, high = min(own.low for own in values), max(own.high for own in values)
                common = max(own.common for own in values)
                hot = sum(own.high > HOT * common for own in values)
                high = common if common > 0 and 0 < 2 * hot < len(values) else high
                ranges[name] = (_lower(low, high, is_float), _upper(high, is_float))
        return cls(**ranges)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Restore ranges from the output of `to_mapping`, read back from JSON."""
        integer, floating = (
            (float(mapping[name][0]), float(mapping[name][1])) for name in ("integer", "floating")
        )
        return cls(integer=integer, floating=floating)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


DEFAULT_LEVELS = GreyLevels()
"""Ranges for single images, outside any data set."""


def is_deep(image: Image.Image) -> bool:
    """Return whether an image is grey with more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def extremes_of(image: Image.Image) -> Extremes | None:
    """Return the extremes of a deep grey image; None for other images."""
    if not is_deep(image):
        return None
    values = np.asarray(image)
    if image.mode == "F":
        finite = values[np.isfinite(values)]
        values = finite if finite.size else np.zeros(1, np.float32)
    hot = min(values.size - 1, math.ceil(HOT_SHARE * values.size))
    common = np.partition(values, values.size - 1 - hot, axis=None)[values.size - 1 - hot]
    return Extremes(float(values.min()), float(values.max()), image.mode == "F", float(common))


def to_eight_bits(image: Image.Image, levels: GreyLevels) -> Image.Image:
    """Return a deep grey image in mode L: its range becomes 0 … 255, rounded; NaN is black."""
    low, high = levels.floating if image.mode == "F" else levels.integer
    values = np.nan_to_num(np.asarray(image).astype(np.float64), nan=low)
    scaled = (np.clip(values, low, high) - low) * (255 / (high - low))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def levels_note(levels: GreyLevels, images: int, *, floats: bool, clipped: int) -> Note:
    """Return a note on the ranges of a data set with so many deep grey images.

    `floats` tells whether any of them holds floats; `clipped` have values above the range.
    """
    ranges = [
        f"{name} {_number(low)} … {_number(high)}"
        for name, (low, high), default in (
            ("integers", levels.integer, DEFAULT_LEVELS.integer),
            ("floats", levels.floating, DEFAULT_LEVELS.floating),
        )
        if (low, high) != default
    ]
    if not ranges:
        default = DEFAULT_LEVELS.floating if floats else DEFAULT_LEVELS.integer
        ranges = [f"{'floats' if floats else 'integers'} 0 … {_number(default[1])}"]
    text = f"{plural(images, 'grey image')} of more than 8 bits scaled to 0 … 255 by one range"
    above = f"; {plural(clipped, 'image')} with larger values clipped" if clipped else ""
    return Note(topic="grey_levels", count=images, text=f"{text}: {', '.join(ranges)}{above}")


def _upper(high: float, is_float: bool) -> float:
    if is_float and high <= OVERSHOOT:
        return 1.0
    bits = max(1 if is_float else FEWEST_BITS, math.ceil(max(high, 0)).bit_length())
    return float(2**bits - 1)


def _lower(low: float, high: float, is_float: bool) -> float:
    if low >= 0 or (is_float and low >= -high / 10):
        return 0.0
    if is_float and low >= -OVERSHOOT:
        return -1.0
    return -float(2 ** math.ceil(math.log2(-low)))


def _number(value: float) -> str:
    return f"{value:,.0f}"
