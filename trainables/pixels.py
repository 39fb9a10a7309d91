"""From image files to pixels: one rule, shared by training and by the exported model.

Axes: N images, S pixels a side, 3 channels (RGB).
"""

import io
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from trainables.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""The decoders that may run. Some of Pillow's others start programs (EPS runs Ghostscript)."""

NamedImage = tuple[str, Path | bytes]
"""What to call an image in a message, and where its bytes are."""

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
    convert to RGB; cut the largest centred square (of an odd surplus, the right or bottom
    loses one pixel more); resize it by Pillow's bicubic filter, whose support grows with
    the reduction, so that it antialiases. An image of that size already is left as it is.
    """
    rgb = _to_rgb(_upright(image))
    width, height = rgb.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = rgb.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))


def read_image(source: Path | bytes, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Decode a file, or the bytes of one, by the rule of `resize_image`.

    Raises:
        DataError: it is missing, damaged, empty or not one of FORMATS.
    """
    try:
        with _opened(source) as image:
            return resize_image(image, size)
    except _UNREADABLE as error:
        name = str(source) if isinstance(source, Path) else f"{len(source)} bytes"
        raise DataError(f"{name} cannot be read as an image: {error}") from None


def short_sides(images: Iterable[NamedImage]) -> list[int]:
    """The shorter side of each image, in pixels, from its header alone; 0 if unreadable."""
    return [_short_side(source) for _, source in images]


def decode_batches(
    batches: Iterable[Sequence[NamedImage]], size: int
) -> Iterator[UInt8[np.ndarray, "batch size size 3"]]:
    """Decode batch after batch, in order, in as many threads as there are cores.

    Raises:
        DataError: after the last batch, if any image could not be read. The message has
            their count and the first three of them.
    """
    broken: list[str] = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for batch in batches:
            decoded = list(threads.map(lambda item: _read_or_none(item[1], size), batch))
            broken += [
                name for (name, _), pixels in zip(batch, decoded, strict=True) if pixels is None
            ]
            if not broken:
                yield np.stack([pixels for pixels in decoded if pixels is not None])
    if broken:
        more = "" if len(broken) <= 3 else ", …"
        raise DataError(
            f"{len(broken)} of the images cannot be read: {', '.join(broken[:3])}{more}; "
            "replace or remove them"
        )


def _opened(source: Path | bytes) -> Image.Image:
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _read_or_none(source: Path | bytes, size: int) -> UInt8[np.ndarray, "size size 3"] | None:
    try:
        return read_image(source, size)
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
