"""Make images of any shape square, by one rule for training, `quorum predict` and exported models.

Axes: N images, S pixels a side, 3 channels (RGB).

    rule    result
    crop    the largest centred square, resized
    squash  the whole image, resized in width and height alike to the same side
    pad     the whole image in its own shape, centred on grey

All three resize with Pillow's bicubic filter, whose support grows with the reduction, so that it
antialiases. An image that already has S×S pixels is not resampled.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from trainables.data.grey_levels import DEFAULT_LEVELS, GreyLevels

ResizeRule = Literal["crop", "squash", "pad"]

_RULES: dict[ResizeRule, str] = {
    "crop": "crop the largest centred square and resize it to {side}",
    "squash": "resize the whole image to {side}, which changes its shape",
    "pad": "resize the whole image to fit into {side}, centred on grey (128, 128, 128)",
}

GREY = (128, 128, 128)
"""Colour around a padded image: the middle of the range, near zero after normalization."""

CROP_MARGIN = 1.25
"""Side of the larger copies that random crops are cut from, as a multiple of the training size.
A crop of 64% of the area then has as many pixels as the network takes."""


def describe_resizing(rule: ResizeRule, size: int) -> str:
    """Describe a rule for the users of an exported model, who resize images themselves."""
    steps = _RULES[rule].format(side=f"{size}×{size} pixels")
    return (
        f"{steps}, by Pillow's bicubic filter, which antialiases; before that, rotate by EXIF, put "
        "transparency on white and convert to RGB (trainables.data.pixels.read_image)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resizing:
    """The squares that images become."""

    size: int
    """Pixels a side, S."""
    rule: ResizeRule = "crop"
    crop_size: int = 0
    """Pixels a side of the larger copies that random crops are cut from; 0 for no copies."""
    levels: GreyLevels = DEFAULT_LEVELS
    """Ranges of grey images of more than 8 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeRequest:
    """A resizing whose size may be left to the data."""

    size: int | None = None
    """Pixels a side; None for any."""
    rule: ResizeRule = "crop"
    crop_size: int = 0

    def at(self, size: int) -> Resizing:
        """Return the resizing to `size` pixels."""
        return Resizing(size=size, rule=self.rule, crop_size=self.crop_size)

    def accepts(self, other: "ResizeRequest") -> bool:
        """Return whether images resized for `other` are what this asks for."""
        return (self.rule, self.crop_size) == (other.rule, other.crop_size) and (
            self.size in (None, other.size)
        )


ANY_SIZE = ResizeRequest()
"""Images of any size, by the default rule and without larger copies."""


def to_square(image: Image.Image, size: int, rule: ResizeRule) -> UInt8[np.ndarray, "size size 3"]:
    """Resize an RGB image to `size` × `size` pixels by a rule of this module.

    An odd surplus takes one pixel more off the right or bottom (`crop`), or adds one there
    (`pad`).
    """
    width, height = image.size
    bicubic = Image.Resampling.BICUBIC
    if rule == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    elif rule == "pad" and width != height:
        scale = size / max(width, height)
        fitting = max(1, round(width * scale)), max(1, round(height * scale))
        canvas = Image.new("RGB", (size, size), GREY)
        place = (size - fitting[0]) // 2, (size - fitting[1]) // 2
        canvas.paste(image.resize(fitting, bicubic), place)
        return np.asarray(canvas)
    return np.asarray(image.resize((size, size), bicubic))


def large_copy(
    image: Image.Image, resizing: Resizing
) -> tuple[UInt8[np.ndarray, "side side 3"], float]:
    """Return the larger copy of an RGB image, and the ratio of width to height that it stands for.

    A random crop may show any part of the image. Where training and prediction see the image's own
    shape (`crop`), the copy holds the whole image squashed, and a crop is stretched back.
    """
    if resizing.rule == "crop":
        width, height = image.size
        return to_square(image, resizing.crop_size, "squash"), width / height
    return to_square(image, resizing.crop_size, resizing.rule), 1.0


def choose_crop_size(image_size: int, typical_side: int) -> int:
    """Return the side of the larger copies: CROP_MARGIN × `image_size`, in multiples of 8 px.

    Copies are no larger than `typical_side`, the usual shorter side of the files, because larger
    ones would hold nothing more, and no smaller than `image_size`.
    """
    wanted = int(CROP_MARGIN * image_size / 8 + 0.5) * 8
    return max(image_size, min(wanted, typical_side))
