"""Scale grey images of more than 8 bits by one range for a whole data set.

A 16-bit file may hold 12 bits (microscopes, X-rays), so that dividing by 257 would make it nearly
black; and a range for each image would turn a dark image into a bright one. So the data set's own
extremes decide, once: integers from 0 to the smallest 2^b − 1 that holds them all (b is at least
8), and floats from 0 to 1 if none is larger, else as integers. A negative value moves the lower end
from 0 to −2^b (or −1 for floats from −1). The range is stored with the decoded images and in the
exported model's card, so that `quorum predict` uses the same.
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

Range = tuple[float, float]
"""The values that become black and white."""


class Extremes(NamedTuple):
    """The least and the largest finite value of one deep grey image, or of several."""

    low: float
    high: float
    is_float: bool


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
            values = [(own.low, own.high) for own in extremes if own.is_float == is_float]
            if values:
                low, high = min(low for low, _ in values), max(high for _, high in values)
                ranges[name] = (_lower(low, is_float), _upper(high, is_float))
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
    return Extremes(float(values.min()), float(values.max()), image.mode == "F")


def to_eight_bits(image: Image.Image, levels: GreyLevels) -> Image.Image:
    """Return a deep grey image in mode L: its range becomes 0 … 255, rounded; NaN is black."""
    low, high = levels.floating if image.mode == "F" else levels.integer
    values = np.nan_to_num(np.asarray(image).astype(np.float64), nan=low)
    scaled = (np.clip(values, low, high) - low) * (255 / (high - low))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def levels_note(levels: GreyLevels, images: int) -> Note:
    """Return a note on the ranges of a data set with so many deep grey images."""
    ranges = [
        f"{name} {_number(low)} … {_number(high)}"
        for name, (low, high), default in (
            ("integers", levels.integer, DEFAULT_LEVELS.integer),
            ("floats", levels.floating, DEFAULT_LEVELS.floating),
        )
        if (low, high) != default
    ] or [f"integers 0 … {_number(DEFAULT_LEVELS.integer[1])}"]
    text = f"{plural(images, 'grey image')} of more than 8 bits scaled to 0 … 255 by one range"
    return Note(topic="grey_levels", count=images, text=f"{text}: {', '.join(ranges)}")


def _upper(high: float, is_float: bool) -> float:
    if is_float and high <= 1:
        return 1.0
    bits = max(FEWEST_BITS, math.ceil(high).bit_length()) if high > 0 else FEWEST_BITS
    return float(2**bits - 1)


def _lower(low: float, is_float: bool) -> float:
    if low >= 0:
        return 0.0
    if is_float and low >= -1:
        return -1.0
    return -float(2 ** math.ceil(math.log2(-low)))


def _number(value: float) -> str:
    return f"{value:,.0f}"
