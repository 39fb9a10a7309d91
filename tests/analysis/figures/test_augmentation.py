"""Augmentation sheets: the original on the left, the views of training beside it."""

import numpy as np
import torch

from analysis.figures.augmentation import GAP, augmentation_sheet
from common.seeds import numpy_generator, torch_generator
from trainables.augmentation.batch import augment
from trainables.recipe import Recipe


def test_a_sheet_shows_originals_and_training_views() -> None:
    images = numpy_generator(0, "noise").integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    recipe = Recipe(augment="trivialaugment", cutout=2)
    sheet = augmentation_sheet(images, recipe, torch_generator(0, "sheet"), draws=4)
    assert sheet.shape == (3 * 8 + 2 * GAP, 5 * 8 + 4 * GAP, 3)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, generator = pixels.mean(dim=(0, 2, 3)), torch_generator(0, "sheet")
    views = [
        augment(pixels, torch.arange(3), recipe.augmentation, mean=mean, generator=generator).images
        for _ in range(4)
    ]
    for i in range(3):
        row = sheet[i * (8 + GAP) : i * (8 + GAP) + 8]
        np.testing.assert_array_equal(row[:, :8], images[i])
        assert bool((row[:, 8 : 8 + GAP] == 255).all())
        for draw, view in enumerate(views, start=1):
            left = draw * (8 + GAP)
            expected = (view[i].permute(1, 2, 0) * 255).numpy()
            np.testing.assert_allclose(row[:, left : left + 8], expected, atol=0.51)


def test_without_augmentation_every_view_is_the_original() -> None:
    images = numpy_generator(0, "noise").integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    sheet = augmentation_sheet(images, Recipe(augment="none"), torch_generator(0, "s"), draws=1)
    np.testing.assert_array_equal(sheet[:, 8 + GAP :], images[0])
