"""Draw docs/corruptions.png: two photographs under every corruption, at five severities.

Command:  python docs/corruption_sheet.py         (one second)

The photographs are scikit-learn's sample images: china.jpg by danielbuechele and flower.jpg
by vultilion, both CC BY 2.0.
"""

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

from ensemble.robustness.corruptions import CORRUPTIONS, FAMILIES, corrupt
from ensemble.robustness.severities import SEVERITIES

SIZE, GAP, LABEL, HEADER, SPACE = 64, 2, 136, 18, 8
"""Pixels: side of a picture, gap between two, label column, header, gap between photographs."""

SEED = 1

CROPS = {"china.jpg": (150, 60, 360), "flower.jpg": (130, 20, 400)}
"""Left edge, upper edge and side of the square that is shown, in pixels."""


def main() -> None:
    """Draw one row per corruption, family by family, and save the picture."""
    images = [photograph(name) for name in CROPS]
    names = sorted(CORRUPTIONS, key=lambda name: FAMILIES.index(CORRUPTIONS[name].family))
    pitch = SIZE + GAP
    block = (1 + len(SEVERITIES)) * pitch - GAP + SPACE
    picture = Image.new("RGB", (LABEL + 2 * block, HEADER + len(names) * pitch - GAP), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    write = functools.partial(draw.text, fill="black", font=font, anchor="lm")
    for left in (LABEL, LABEL + block):
        write((left, HEADER // 2), "original")
        write((left + pitch, HEADER // 2), "severity 1 to 5")
    for i, name in enumerate(names):
        top = HEADER + i * pitch
        write((0, top + SIZE // 2), f"{CORRUPTIONS[name].family}:\n{name.replace('_', ' ')}")
        for k, image in enumerate(images):
            for j, pixels in enumerate([image, *corrupted(image, name, k)]):
                picture.paste(Image.fromarray(pixels), (LABEL + k * block + j * pitch, top))
    # 256 colours keep the file small.
    few = picture.quantize(256, dither=Image.Dither.NONE)
    few.save(Path(__file__).with_name("corruptions.png"), optimize=True)


def corrupted(image: npt.NDArray[np.uint8], name: str, key: int) -> npt.NDArray[np.uint8]:
    """Return an image at every severity of a corruption."""
    count = len(SEVERITIES)
    images = np.repeat(image[None], count, axis=0)
    return corrupt(images, [name] * count, SEVERITIES, ids=[key] * count, seed=SEED)


def photograph(name: str) -> npt.NDArray[np.uint8]:
    """Load the square of a sample image."""
    left, upper, side = CROPS[name]
    image = Image.fromarray(load_sample_image(name))
    box = (left, upper, left + side, upper + side)
    return np.array(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS, box=box))


if __name__ == "__main__":
    main()
