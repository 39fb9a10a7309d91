"""Sizes and colour modes of images in their source files, before resizing.

Axes: N images.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

SourceFormat = tuple[int, int, str]
"""Width and height in pixels as stored (before EXIF rotation), and Pillow's colour mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSizes:
    """A summary of the sizes and colour modes of N images.

    Sizes are (width, height) in pixels, ordered by area, then by width.
    """

    smallest: tuple[int, int]
    """Size of the smallest image."""
    median: tuple[int, int]
    """Median size; for an even number of images, the smaller of the two in the middle."""
    largest: tuple[int, int]
    """Size of the largest image."""
    sizes: int
    """Number of different sizes."""
    modes: Mapping[str, int]
    """Number of images by Pillow's colour mode, the most common first."""

    @classmethod
    def from_counts(cls, counts: Mapping[SourceFormat, int]) -> Self:
        """Summarise the number of images of each size and mode.

        Raises:
            ValueError: there is no image.
        """
        if not counts:
            raise ValueError("there must be at least one image, got none")
        sizes: dict[tuple[int, int], int] = {}
        modes: dict[str, int] = {}
        for (width, height, mode), count in counts.items():
            sizes[width, height] = sizes.get((width, height), 0) + count
            modes[mode] = modes.get(mode, 0) + count
        ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size[0]))
        return cls(
            smallest=ordered[0],
            median=_median_size(ordered, sizes),
            largest=ordered[-1],
            sizes=len(ordered),
            modes=dict(sorted(modes.items(), key=lambda mode: (-mode[1], mode[0]))),
        )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Restore a summary from the output of `to_mapping`, read back from JSON.

        Raises:
            KeyError, TypeError, ValueError: a key is missing or a value is invalid.
        """
        smallest, median, largest = (
            (int(width), int(height))
            for width, height in (mapping[name] for name in ("smallest", "median", "largest"))
        )
        return cls(
            smallest=smallest,
            median=median,
            largest=largest,
            sizes=int(mapping["sizes"]),
            modes={str(mode): int(count) for mode, count in mapping["modes"].items()},
        )

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def _median_size(
    ordered: list[tuple[int, int]], counts: Mapping[tuple[int, int], int]
) -> tuple[int, int]:
    """Return the size of image ⌊(N − 1)/2⌋ of all images in order, counted from 0."""
    remaining = (sum(counts.values()) - 1) // 2
    for size in ordered:
        if remaining < counts[size]:
            return size
        remaining -= counts[size]
    raise AssertionError("the median image is one of the images")
