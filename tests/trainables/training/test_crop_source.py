"""Training cuts random crops from the larger copies, and from nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from common.seeds import numpy_generator, torch_generator
from tests.trainables.training.test_active_stage import only_batch
from tests.trainables.training.test_loop import CLASSES, IMAGES, SIZE, SPLITS, start
from trainables.augmentation.batch import augment
from trainables.data.image_set import ImageSet, LargeCopies
from trainables.nets.build import build_model
from trainables.prediction import PixelSource
from trainables.recipe import Numerics, Recipe
from trainables.stages import Stage
from trainables.training.active_stage import ActiveStage
from trainables.training.crop_source import CropSource

SIDE = 12
CROPS = Recipe(width=3, crop_scale=0.3, translate=0, flip=False, epochs=2, batch_size=16)


def with_copies(seed: int = 0) -> ImageSet:
    rng = numpy_generator(seed, "copies")
    pixels = rng.integers(0, 256, (len(IMAGES), SIDE, SIDE, 3), dtype=np.uint8)
    aspects = rng.uniform(0.5, 2, len(IMAGES)).astype(np.float32)
    return replace(IMAGES, large=LargeCopies(pixels=pixels, aspects=aspects))


def batch_images(recipe: Recipe, images: ImageSet, numerics: Numerics) -> Tensor:
    """Return the images of one batch of the first stage."""
    model = build_model(
        recipe, classes=CLASSES, image_size=SIZE, train_images=images.images, seed=0
    )
    stage = ActiveStage(
        model,
        recipe,
        PixelSource(images.images, SPLITS.train, numerics),
        numerics,
        crop_source=CropSource.of(images, SPLITS.train, numerics),
    )
    positions = torch.tensor([3, 0, 9])
    labels = torch.zeros(3, dtype=torch.int64)
    return only_batch(stage, positions, labels).images


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_crops_come_from_the_larger_copies_at_the_training_size(layout: str) -> None:
    images, numerics = with_copies(), Numerics(layout=layout)  # type: ignore[arg-type]
    shown = batch_images(CROPS, images, numerics)
    assert shown.shape == (3, 3, SIZE, SIZE)
    assert images.large is not None
    chosen = SPLITS.train[[3, 0, 9]]
    copies = torch.from_numpy(images.large.pixels[chosen]).permute(0, 3, 1, 2) / 255
    expected = augment(
        copies,
        torch.zeros(3, dtype=torch.int64),
        CROPS.augmentation,
        mean=torch.zeros(3),
        generator=torch_generator(0, "a"),
        aspects=torch.from_numpy(images.large.aspects[chosen]),
        size=SIZE,
    ).images
    torch.testing.assert_close(shown, expected, atol=1e-5, rtol=0)


def test_without_copies_the_images_are_cropped() -> None:
    shown = batch_images(CROPS, IMAGES, Numerics())
    assert shown.shape == (3, 3, SIZE, SIZE)
    whole = batch_images(CROPS.with_values(crop_scale=1.0), IMAGES, Numerics())
    assert not torch.equal(shown, whole)


def test_without_random_crops_the_copies_are_not_used() -> None:
    still = CROPS.with_values(crop_scale=1.0)
    images = batch_images(still, IMAGES, Numerics())
    assert torch.equal(batch_images(still, with_copies(), Numerics()), images)
    head = still.with_values(stages=(Stage(train="head", values={"augment": "none"}),))
    features = batch_images(head, IMAGES, Numerics())
    assert torch.equal(batch_images(head, with_copies(), Numerics()), features)


def test_a_training_with_crops_depends_on_the_copies_and_is_scored_on_the_images() -> None:
    """The same copies give the same weights; scores never see the copies."""

    def scores(images: ImageSet, recipe: Recipe) -> list[float]:
        training = start(recipe, rungs=(2,), images=images)
        return [report.val_nll for report in training.reports()]

    assert scores(with_copies(0), CROPS) == scores(with_copies(0), CROPS)
    assert scores(with_copies(0), CROPS) != scores(with_copies(1), CROPS)
    whole = CROPS.with_values(crop_scale=1.0)
    assert scores(with_copies(0), whole) == scores(IMAGES, whole)
