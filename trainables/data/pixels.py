"""From image files to pixels: one rule, shared by training and by the exported model.

Axes: N images, S pixels a side, 3 channels (RGB).
"""

import io
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from common.cpu_runtime import usable_cores
from common.errors import DataError
from trainables.data.source_sizes import Original

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""The decoders that may run. Some of Pillow's others start programs (EPS runs Ghostscript)."""

SMALLEST_SIDE = 8
"""Pixels a side: less, and the convolutional family has nothing left to pool."""
LARGEST_SIDE = 64
"""Pixels a side that larger photographs are reduced to, unless a larger size is affordable."""

NamedImage = tuple[str, Path | bytes]
"""What to call an image in a message, and where its bytes are."""


class Decoded(NamedTuple):
    """A batch of images."""

    images: UInt8[np.ndarray, "batch S S 3"]
    """Black where an image cannot be read."""
    broken: dict[int, str]
    """The positions in the batch of those that cannot be read, and what they are called."""
    originals: Sequence[Original | None] = ()
    """What each was before it became S × S: None of those that cannot be read; empty where
    nobody knows."""


_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


def resize_image(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Any Pillow image as uint8 RGB of `size` × `size` pixels.

    The rule: turn as EXIF says; scale 16-bit grey to 8 bits; put transparency on white;
    convert to RGB (grey repeated, palettes looked up, CMYK without a colour profile); cut
    the largest centred square (of an odd surplus, the right or bottom loses one pixel
    more); resize it by Pillow's bicubic filter, whose support grows with the reduction, so
    that it antialiases. An image of that size already is left as it is.
    """
    rgb = _to_rgb(_upright(image))
    width, height = rgb.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = rgb.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))


def read_image(source: Path | bytes, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Decode a file, or the bytes of one, by the rule of `resize_image`.

    A JPEG of at least four times the size is decoded at ½, ¼ or ⅛ of its own, by leaving
    out high frequencies of its blocks, but never at less than twice `size`: photographs
    of 12 megapixels take a quarter of the time.

    Raises:
        DataError: it is missing, damaged, empty or not one of FORMATS.
    """
    return _read(source, size)[0]


def short_sides(images: Iterable[NamedImage]) -> list[int]:
    """The shorter side of each image, in pixels, from its header alone; 0 if unreadable."""
    return [_short_side(source) for _, source in images]


def choose_image_size(short_sides: Sequence[int], *, affordable: int | None = None) -> int:
    """Pixels a side that images whose shorter sides are these should be resized to.

    The side that most images have is kept, so that nothing is resampled; without such a
    majority it is the median, to the nearest multiple of 8. Both within SMALLEST_SIDE and
    the largest multiple of 8 that `affordable` allows: the side that a time budget pays
    for, LARGEST_SIDE where nobody has said.

    Raises:
        ValueError: there is no side, or one that is not positive.
    """
    if not short_sides or min(short_sides) < 1:
        raise ValueError(f"sides must be positive and at least one, got {list(short_sides)[:5]}")
    side, count = Counter(short_sides).most_common(1)[0]
    if 2 * count <= len(short_sides):
        side = int(np.median(short_sides) / 8 + 0.5) * 8
    largest = LARGEST_SIDE if affordable is None else affordable // 8 * 8
    return max(SMALLEST_SIDE, min(side, largest))


def decode_batches(batches: Iterable[Sequence[NamedImage]], size: int) -> Iterator[Decoded]:
    """Decode batch after batch, in order, in as many threads as there are cores.

    Pillow decodes and resizes without Python's global lock.
    """
    with ThreadPoolExecutor(usable_cores()) as threads:
        for batch in batches:
            decoded = list(threads.map(lambda item: _read_or_none(item[1], size), batch))
            black = np.zeros((size, size, 3), np.uint8)
            yield Decoded(
                images=np.stack([black if found is None else found[0] for found in decoded]),
                broken={i: batch[i][0] for i, found in enumerate(decoded) if found is None},
                originals=[None if found is None else found[1] for found in decoded],
            )


def _opened(source: Path | bytes) -> Image.Image:
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _read(source: Path | bytes, size: int) -> tuple[UInt8[np.ndarray, "size size 3"], Original]:
    """`read_image`, and what the image is in its file, which its header tells for nothing."""
    try:
        with _opened(source) as image:
            original = (*image.size, image.mode)
            image.draft(None, (2 * size, 2 * size))  # does nothing for other formats
            return resize_image(image, size), original
    except _UNREADABLE as error:
        name = str(source) if isinstance(source, Path) else f"{len(source)} bytes"
        raise DataError(f"{name} cannot be read as an image: {error}") from None


def _read_or_none(
    source: Path | bytes, size: int
) -> tuple[UInt8[np.ndarray, "size size 3"], Original] | None:
    try:
        return _read(source, size)
    except DataError:
        return None


def _short_side(source: Path | bytes) -> int:
    try:
        with _opened(source) as image:
            return min(image.size)
    except _UNREADABLE:
        return 0


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except (*_UNREADABLE, KeyError, TypeError):
        return image  # The pixels are there; a damaged EXIF block says nothing about them.


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion would clip at 255: all but the darkest 1/256 turns white.
        grey = np.clip(np.asarray(image).astype(np.float64), 0, 65535)
        return Image.fromarray(np.rint(grey / 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
