"""What images were before they were brought to the training size.

Axes: N images.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

Original = tuple[int, int, str]
"""Width and height in pixels, as stored (before any turn that EXIF asks for), and Pillow's
colour mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Originals:
    """The sizes and colour modes of N images, in a few values.

    Sizes are a width and a height in pixels. They stand in order of their area; of equal
    areas the narrower comes first.
    """

    smallest: tuple[int, int]
    """The size of the smallest image."""
    median: tuple[int, int]
    """That of the image in the middle; of two in the middle, the smaller."""
    largest: tuple[int, int]
    """That of the largest image."""
    sizes: int
    """How many different sizes there are."""
    modes: Mapping[str, int]
    """Images of each of Pillow's colour modes, the commonest first."""

    @classmethod
    def of(cls, found: Mapping[Original, int]) -> Self:
        """From how many images there are of each size and mode.

        Raises:
            ValueError: there is no image.
        """
        if not found:
            raise ValueError("there must be an image of some size, got none")
        sizes: dict[tuple[int, int], int] = {}
        modes: dict[str, int] = {}
        for (width, height, mode), count in found.items():
            sizes[width, height] = sizes.get((width, height), 0) + count
            modes[mode] = modes.get(mode, 0) + count
        ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size[0]))
        return cls(
            smallest=ordered[0],
            median=_middle(ordered, sizes),
            largest=ordered[-1],
            sizes=len(ordered),
            modes=dict(sorted(modes.items(), key=lambda mode: (-mode[1], mode[0]))),
        )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """What `to_mapping` gave, after a way through JSON.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
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
        """Plain values, for JSON."""
        return asdict(self)


def _middle(
    ordered: list[tuple[int, int]], sizes: Mapping[tuple[int, int], int]
) -> tuple[int, int]:
    """The size of image ⌊(N − 1)/2⌋, counted from 0, when all stand in order."""
    left = (sum(sizes.values()) - 1) // 2
    for size in ordered:
        if left < sizes[size]:
            return size
        left -= sizes[size]
    raise AssertionError("the middle lies among the images")
