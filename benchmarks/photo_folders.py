"""Make a folder of photographs of odd sizes, few per class, from a larger labelled set.

Command:  python benchmarks/photo_folders.py SOURCE OUT --classes 20 --train 60 --test 60

SOURCE is what `quorum run --data` takes. Every picture is enlarged to a side of 48 to 160 px, and
cut to an aspect ratio of up to 2:1 at a random place, so that hardly two have the same size. The
folder has the layout OUT/train/CLASS and OUT/test/CLASS. It compares transfer with networks from
scratch where a user would meet the question: see results/photographs-cpu.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from common.seeds import numpy_generator
from trainables.data.dataset import DatasetSpec, load_dataset

SIDES = (48, 160)
"""Least and most pixels of the longer side."""

LONGEST = 2.0
"""Largest ratio of the sides."""

QUALITY = 92
"""JPEG quality."""


def main() -> None:
    """Write the folder and print its size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="folder of class folders, or of Parquet files")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--classes", type=int, default=20, help="classes, drawn at random")
    parser.add_argument("--train", type=int, default=60, help="pictures of each class in train")
    parser.add_argument("--test", type=int, default=60, help="pictures of each class in test")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images = load_dataset(DatasetSpec(name="images", path=options.source))
    rng = numpy_generator(options.seed, "photo_folders")
    chosen = rng.choice(len(images.class_names), options.classes, replace=False)
    for label in sorted(chosen):
        indices = rng.permutation(np.flatnonzero(images.labels == label))
        for number, index in enumerate(indices[: options.train + options.test]):
            split = "train" if number < options.train else "test"
            path = options.out / split / images.class_names[label] / f"{index:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            photograph(images.images[index], rng).save(path, quality=QUALITY)
    print(f"{options.out}: {options.classes} classes, {options.train} + {options.test} each")


def photograph(pixels: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Return pixels uint8 [S, S, 3] enlarged and cut to a random size."""
    side = int(rng.integers(*SIDES, endpoint=True))
    short = int(side / rng.uniform(1.0, LONGEST))
    width, height = (side, short) if rng.random() < 0.5 else (short, side)
    left, top = int(rng.integers(side - width + 1)), int(rng.integers(side - height + 1))
    whole = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    return whole.crop((left, top, left + width, top + height))


if __name__ == "__main__":
    main()
