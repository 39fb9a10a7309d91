"""Things to know about images that only show when they are decoded: frames, bit depth, size."""

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from trainables.data.grey_levels import (
    OVERSHOOT,
    Extremes,
    GreyLevels,
    extremes_of,
    is_deep,
    levels_note,
)
from trainables.data.image_formats import formats_of
from trainables.data.notes import Note, note

LARGEST = 2 * (Image.MAX_IMAGE_PIXELS or 0)
"""Pixels of the largest image that Pillow opens: small files may claim to be huge."""

COMPOSED = ("PSD", "MPO", "ICO", "ICNS")
"""Formats whose further frames are layers, previews or smaller copies of the first."""

TEXTS = {
    "first_frame": "with several frames or pages: only the first is used",
    "upper_byte": "in 16-bit colour, of which the upper 8 bits are used (data of fewer bits get "
    "dark: convert them to 8 bits)",
    "unreadable": "that cannot be read, left out",
    "too_large": f"of more than {LARGEST:,} pixels, left out",
}
"""The notes on images, by topic."""


class Observed(NamedTuple):
    """Remarks on one image: topics of TEXTS, and the extremes of a deep grey image."""

    topics: frozenset[str] = frozenset()
    extremes: Extremes | None = None


def observe(image: Image.Image) -> Observed:
    """Return the remarks on an opened image, and decode it."""
    topics = set()
    if image.format not in COMPOSED and _is_animated(image):
        topics.add("first_frame")
    raw_modes = [str(tile.args) for tile in getattr(image, "tile", ())]
    if not is_deep(image) and any(";16" in mode for mode in raw_modes):
        topics.add("upper_byte")
    image.load()
    return Observed(frozenset(topics), extremes_of(image))


def is_too_large(source: Path | bytes) -> bool:
    """Return whether an image's header claims more than LARGEST pixels."""
    file, path = (io.BytesIO(source), None) if isinstance(source, bytes) else (source, source)
    try:
        with Image.open(file, formats=formats_of(path)):
            return False
    except Image.DecompressionBombError:
        return True
    except Exception:  # damaged in any other way
        return False


class Observations:
    """Collect the remarks on the images of a data set."""

    def __init__(self) -> None:
        """Start without remarks."""
        self._names: dict[str, list[str]] = defaultdict(list)
        self._extremes: list[Extremes] = []

    def add(self, name: str, observed: Observed | None) -> None:
        """Add the remarks on an image, if there are any."""
        if observed is None:
            return
        for topic in sorted(observed.topics):
            self._names[topic].append(name)
        own = observed.extremes
        if own is not None:
            self._extremes.append(own)

    @property
    def levels(self) -> GreyLevels:
        """Return the ranges for all deep grey images that were added."""
        return GreyLevels.of_extremes(self._extremes)

    def notes(self, *, unreadable: Iterable[str], too_large: Iterable[str]) -> Iterator[Note]:
        """Yield the notes; images too large are unreadable ones too."""
        large = frozenset(too_large)
        names = {
            **self._names,
            "unreadable": [name for name in unreadable if name not in large],
            "too_large": [name for name in unreadable if name in large],
        }
        for topic, text in TEXTS.items():
            if names.get(topic):
                yield note(topic, names[topic], text)
        if self._extremes:
            levels = self.levels
            tops = {True: max(levels.floating[1], OVERSHOOT), False: levels.integer[1]}
            yield levels_note(
                levels,
                len(self._extremes),
                floats=any(own.is_float for own in self._extremes),
                clipped=sum(own.high > tops[own.is_float] for own in self._extremes),
            )


def _is_animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged later frame does not affect the first
        return False
