"""Scores: an error instead of a NaN."""

import pytest
from torch import nn

from common.errors import DivergedError
from quorum.testing.trainers import striped_images
from trainables.nets.build import build_model
from trainables.nets.classifier import Classifier
from trainables.prediction import PixelSource, place_model
from trainables.recipe import Numerics, Recipe
from trainables.training.schedule import plan_epochs
from trainables.training.scoring import Scorer

IMAGES, SPLITS = striped_images()


def some_model() -> Classifier:
    model = build_model(
        Recipe(width=4, dropout=0.5), classes=3, image_size=8, train_images=IMAGES.images, seed=0
    )
    place_model(model, Numerics())
    return model


def train_source() -> PixelSource:
    return PixelSource(IMAGES.images, SPLITS.train, Numerics())


def test_a_score_that_is_not_finite_names_value_and_epoch() -> None:
    model, plan = some_model(), plan_epochs((3,), Recipe(epochs=3))[1]
    nn.init.constant_(next(model.parameters()), float("nan"))
    scorer = Scorer(train_source(), IMAGES, SPLITS, Numerics())
    with pytest.raises(DivergedError, match=r"score on val became nan in epoch 2 \(step 2\)"):
        scorer.score(model, plan, recalibrated=True)
