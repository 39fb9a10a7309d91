"""Scores: recalibrated batch normalization, and an error instead of a NaN."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.errors import DivergedError
from quorum.testing.trainers import striped_images
from trainables.nets.build import build_model
from trainables.nets.classifier import Classifier
from trainables.prediction import PixelSource, place_model
from trainables.recipe import Numerics, Recipe
from trainables.training.schedule import plan_epochs
from trainables.training.scoring import Scorer, recalibrate

IMAGES, SPLITS = striped_images()


def some_model() -> Classifier:
    model = build_model(
        Recipe(width=4, dropout=0.5), classes=3, image_size=8, train_images=IMAGES.images, seed=0
    )
    place_model(model, Numerics())
    return model


def train_source() -> PixelSource:
    return PixelSource(IMAGES.images, SPLITS.train, Numerics())


def test_recalibrated_statistics_equal_those_of_the_images() -> None:
    model = some_model()
    seen: list[Tensor] = []
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    state = torch.random.get_rng_state()
    recalibrate(model, train_source(), torch.arange(20), Numerics())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module.training for module in model.modules())
    assert norm.momentum == 0.1
    assert norm.running_mean is not None
    assert norm.running_var is not None
    np.testing.assert_allclose(norm.running_mean, seen[0].mean(dim=(0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(norm.running_var, seen[0].var(dim=(0, 2, 3)), rtol=1e-4)


def test_a_score_that_is_not_finite_names_value_and_epoch() -> None:
    model, plan = some_model(), plan_epochs((3,), Recipe(epochs=3))[1]
    nn.init.constant_(next(model.parameters()), float("nan"))
    scorer = Scorer(train_source(), IMAGES, SPLITS, Numerics())
    with pytest.raises(DivergedError, match=r"score on val became nan in epoch 2 \(step 2\)"):
        scorer.score(model, plan, recalibrated=True)
