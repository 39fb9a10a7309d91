"""Read image files as RGB pixels, in the same way for training and for the exported model.

Axes: N images, S pixels a side, 3 channels (RGB). The canonical pixels, which identify an image at
every size, are its upright RGB pixels before they are cropped and resized; of grey images of more
than 8 bits they are the values in the file, before they are scaled by the levels of the data set.
JPEGs with shorter sides of 1,024 pixels or more are decoded at ½, ¼ or ⅛ of their size, but not
below CANONICAL_SIDE.
"""

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps

from common.cpu_runtime import usable_cores
from common.errors import DataError
from trainables.data.digests import DIGEST_BYTES, join_digests, pixel_digest
from trainables.data.grey_levels import DEFAULT_LEVELS, GreyLevels, is_deep, to_eight_bits
from trainables.data.image_formats import formats_of, quiet_pillow
from trainables.data.observations import Observed, is_too_large, observe
from trainables.data.resizing import ResizeRule, Resizing, large_copy, to_square
from trainables.data.source_sizes import SourceFormat

SMALLEST_SIDE = 8
"""Smallest image size, in pixels a side; convnet pools three times, which needs 8 pixels."""
LARGEST_SIDE = 64
"""Largest image size, in pixels a side, unless a time budget sets another limit."""

CANONICAL_SIDE = 512
"""Shorter side in pixels that a JPEG keeps at least where it is decoded at a reduced size: 12
megapixels then take a quarter of the time. It fixes the canonical pixels, so a change divides data
sets of large photographs anew."""

NamedImage = tuple[str, Path | bytes]
"""An image's name for messages, and its file or bytes."""


class DecodedBatch(NamedTuple):
    """A batch of decoded images."""

    images: UInt8[np.ndarray, "batch S S 3"]
    """Unreadable images are black."""
    broken: dict[int, str]
    """Names of the unreadable images, by position in the batch."""
    formats: Sequence[SourceFormat | None] = ()
    """Size and mode of each image in its file; None if unreadable, empty if unknown."""
    digests: UInt8[np.ndarray, "batch 16"] | None = None
    """Digests of the canonical pixels; None if the images were not resized."""
    large: UInt8[np.ndarray, "batch W W 3"] | None = None
    """Larger copies of the images, if the resizing asks for them."""
    aspects: Float32[np.ndarray, " batch"] | None = None
    """Ratio of width to height that each larger copy stands for."""
    names: Sequence[str] = ()
    """Name of each image; empty if they have none."""
    observed: Sequence[Observed | None] = ()
    """Remarks on each image; None if unreadable, empty if there are none."""
    too_large: frozenset[int] = frozenset()
    """Positions of unreadable images with too many pixels."""


class _Decoded(NamedTuple):
    pixels: UInt8[np.ndarray, "size size 3"]
    source_format: SourceFormat
    digest: bytes
    large: UInt8[np.ndarray, "side side 3"] | None
    aspect: float
    observed: Observed


def resize_image(
    image: Image.Image,
    size: int,
    rule: ResizeRule = "crop",
    levels: GreyLevels = DEFAULT_LEVELS,
) -> UInt8[np.ndarray, "size size 3"]:
    """Return any Pillow image as uint8 RGB of `size` × `size` pixels.

    The steps: rotate by EXIF; scale grey of more than 8 bits by `levels`; put transparency on
    white; convert to RGB (grey repeated, palettes looked up, CMYK without a colour profile); make
    it square by `rule`, see trainables/data/resizing.py.
    """
    return to_square(_to_rgb(_upright(image), levels), size, rule)


def read_image(
    source: Path | bytes,
    size: int,
    rule: ResizeRule = "crop",
    levels: GreyLevels = DEFAULT_LEVELS,
) -> UInt8[np.ndarray, "size size 3"]:
    """Decode an image file, or its bytes, as `resize_image` does.

    A JPEG of at least four times `size`, and of 1,024 pixels, is decoded at ½, ¼ or ⅛ of its size,
    which leaves out the high frequencies of its blocks, but never below twice `size` or
    CANONICAL_SIDE.

    Raises:
        DataError: the file is missing, damaged, empty or in no format that is read.
    """
    with quiet_pillow():
        return _read(source, Resizing(size=size, rule=rule, levels=levels)).pixels


def short_sides(images: Iterable[NamedImage]) -> list[int]:
    """Return the shorter side of each image in pixels, from its header; 0 if unreadable."""
    with quiet_pillow():
        return [_short_side(source) for _, source in images]


def choose_image_size(short_sides: Sequence[int], *, affordable: int | None = None) -> int:
    """Return the pixels a side to which images with these shorter sides should be resized.

    If more than half of the images have the same side, it is kept, so that they are not
    resampled; otherwise the median is rounded to a multiple of 8. The result is at least
    SMALLEST_SIDE and at most the largest multiple of 8 up to `affordable`, the side that a time
    budget allows (LARGEST_SIDE if None).

    Raises:
        ValueError: `short_sides` is empty, or a side is not positive.
    """
    if not short_sides or min(short_sides) < 1:
        raise ValueError(f"there must be positive sides, got {list(short_sides)[:5]}")
    side, count = Counter(short_sides).most_common(1)[0]
    if 2 * count <= len(short_sides):
        side = int(np.median(short_sides) / 8 + 0.5) * 8
    largest = LARGEST_SIDE if affordable is None else affordable // 8 * 8
    return max(SMALLEST_SIDE, min(side, largest))


def decode_batches(
    batches: Iterable[Sequence[NamedImage]], resizing: Resizing
) -> Iterator[DecodedBatch]:
    """Decode batches in order, with a thread per core; Pillow releases Python's global lock."""
    with ThreadPoolExecutor(usable_cores()) as threads:
        for batch in batches:
            with quiet_pillow():
                decoded = list(threads.map(lambda item: _read_or_none(item[1], resizing), batch))
                unread = [i for i, image in enumerate(decoded) if image is None]
                large = frozenset(i for i in unread if is_too_large(batch[i][1]))
            joined = _joined(decoded, [name for name, _ in batch], resizing)
            yield joined._replace(too_large=large)


def _joined(
    decoded: Sequence[_Decoded | None], names: Sequence[str], resizing: Resizing
) -> DecodedBatch:
    black = np.zeros((resizing.size, resizing.size, 3), np.uint8)
    large = aspects = None
    if resizing.crop_size:
        nothing = np.zeros((resizing.crop_size, resizing.crop_size, 3), np.uint8)
        copies = [None if image is None else image.large for image in decoded]
        large = np.stack([nothing if copy is None else copy for copy in copies])
        aspects = np.array([1 if image is None else image.aspect for image in decoded], np.float32)
    return DecodedBatch(
        images=np.stack([black if image is None else image.pixels for image in decoded]),
        broken={i: names[i] for i, image in enumerate(decoded) if image is None},
        formats=[None if image is None else image.source_format for image in decoded],
        digests=join_digests(
            [bytes(DIGEST_BYTES) if image is None else image.digest for image in decoded]
        ),
        large=large,
        aspects=aspects,
        names=names,
        observed=[None if image is None else image.observed for image in decoded],
    )


def _opened(source: Path | bytes) -> Image.Image:
    if isinstance(source, bytes):
        return Image.open(io.BytesIO(source), formats=formats_of(None))
    return Image.open(source, formats=formats_of(source))


def _read(source: Path | bytes, resizing: Resizing) -> _Decoded:
    """Return the pixels as `read_image` does, the size and mode in the file, and the digest."""
    try:
        levels = resizing.levels
        upright, source_format, reduced, observed = _decode(source, CANONICAL_SIDE)
        rgb = _to_rgb(upright, levels)
        digest = pixel_digest(np.asarray(upright if is_deep(upright) else rgb))
        # Not by crop_size, so that the pixels do not depend on it.
        if reduced and 2 * resizing.size > CANONICAL_SIDE:
            rgb = _to_rgb(_decode(source, 2 * resizing.size)[0], levels)
        pixels = to_square(rgb, resizing.size, resizing.rule)
        large, aspect = large_copy(rgb, resizing) if resizing.crop_size else (None, 1.0)
        return _Decoded(pixels, source_format, digest, large, aspect, observed)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can make a decoder fail in any way
        name = str(source) if isinstance(source, Path) else f"{len(source)} bytes"
        raise DataError(f"{name} cannot be read as an image: {error}; replace it") from None


def _decode(source: Path | bytes, least: int) -> tuple[Image.Image, SourceFormat, bool, Observed]:
    """Return an upright image, its size and mode, whether it was reduced, and remarks.

    `least` is the shorter side that reduced decoding keeps at least, in pixels.
    """
    with _opened(source) as image:
        source_format = (*image.size, image.mode)
        image.draft(None, (least, least))  # affects JPEG only
        reduced = image.size != source_format[:2]
        observed = observe(image)
        return _upright(image), source_format, reduced, observed


def _read_or_none(source: Path | bytes, resizing: Resizing) -> _Decoded | None:
    try:
        return _read(source, resizing)
    except DataError:
        return None


def _short_side(source: Path | bytes) -> int:
    try:
        with _opened(source) as image:
            return min(image.size)
    except MemoryError:
        raise
    except Exception:  # as in _read
        return 0


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # a damaged EXIF block does not affect the pixels
        return image


def _to_rgb(image: Image.Image, levels: GreyLevels) -> Image.Image:
    if is_deep(image):
        # Pillow's conversion clips at 255: all but the darkest 1/256 of the range would be white.
        return to_eight_bits(image, levels).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
