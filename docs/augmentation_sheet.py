"""Draw docs/augment.png: two photographs under every augmentation policy.

Command:  python docs/augmentation_sheet.py         (one second)

The photographs are scikit-learn's sample images: china.jpg by danielbuechele and flower.jpg
by vultilion, both CC BY 2.0.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

from analysis.figures.augmentation import GAP, augmentation_sheet
from common.seeds import torch_generator
from trainables.recipe import Recipe

SIZE, LARGE, DRAWS = 64, 80, 5
"""Pixels a side of a picture and of the copy that crops are cut from; views of a photograph."""

LABEL, HEADER, SPACE = 136, 18, 8
"""Pixels: width of the label column, height of the header, gap between the photographs."""

SEED = 1

CROPS = {"china.jpg": (150, 60, 360), "flower.jpg": (130, 20, 400)}
"""Left edge, upper edge and side of the square that is shown, in pixels."""

ROWS: dict[str, dict[str, Any]] = {
    "standard": {"translate": 0.0625},
    "crop_scale: 0.25": {"crop_scale": 0.25, "translate": 0},
    "cutout: 0.375,\nerase_probability: 0.5": {"cutout": 0.375, "erase_probability": 0.5},
    "colour": {"augment": "colour"},
    "colour,\nmagnitude 30": {"augment": "colour", "augment_magnitude": 30.0},
    "affine": {"augment": "affine"},
    "affine,\nmagnitude 30": {"augment": "affine", "augment_magnitude": 30.0},
    "randaugment": {"augment": "randaugment"},
    "trivialaugment": {"augment": "trivialaugment"},
    "trivialaugment_wide": {"augment": "trivialaugment_wide"},
}


def main() -> None:
    """Draw one row per policy and save the picture."""
    images = [photograph(name, SIZE) for name in CROPS]
    large = [photograph(name, LARGE) for name in CROPS]
    recipes = [Recipe.from_mapping(values) for values in ROWS.values()]
    rows = [Image.fromarray(row(images, large, recipe)) for recipe in recipes]
    pitch = SIZE + GAP
    picture = Image.new("RGB", (LABEL + rows[0].width, HEADER + len(rows) * pitch - GAP), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    write = functools.partial(draw.text, fill="black", font=font, anchor="lm")
    for left in (LABEL, LABEL + (1 + DRAWS) * pitch - GAP + SPACE):
        write((left, HEADER // 2), "original")
        write((left + pitch, HEADER // 2), "as training sees it")
    for i, (name, block) in enumerate(zip(ROWS, rows, strict=True)):
        picture.paste(block, (LABEL, HEADER + i * pitch))
        write((0, HEADER + i * pitch + SIZE // 2), name)
    # 256 colours keep the file small.
    few = picture.quantize(256, dither=Image.Dither.NONE)
    few.save(Path(__file__).with_name("augment.png"), optimize=True)


def row(
    images: list[npt.NDArray[np.uint8]], large: list[npt.NDArray[np.uint8]], recipe: Recipe
) -> npt.NDArray[np.uint8]:
    """Join the views of the first photograph and those of the second."""
    parts = [
        augmentation_sheet(
            image[None],
            recipe,
            torch_generator(SEED, "sheet", i),
            draws=DRAWS,
            large=copy[None],
        )
        for i, (image, copy) in enumerate(zip(images, large, strict=True))
    ]
    return np.concatenate([parts[0], np.full((SIZE, SPACE, 3), 255, np.uint8), parts[1]], axis=1)


def photograph(name: str, size: int) -> npt.NDArray[np.uint8]:
    """Load the square of a sample image, resized to `size` pixels a side."""
    left, upper, side = CROPS[name]
    image = Image.fromarray(load_sample_image(name))
    box = (left, upper, left + side, upper + side)
    return np.array(image.resize((size, size), Image.Resampling.LANCZOS, box=box))


if __name__ == "__main__":
    main()
