"""The real and the fake trainer pass the contract tests; the feature cache."""

import torch

from quorum.testing.trainers import TrainerContract
from tests.fake_training import FakeTraining
from trainables.recipe import Recipe
from trainables.trainer import FeatureCache
from trainables.training.loop import Training


class TestTraining(TrainerContract):
    trainer = Training
    recipe = Recipe(width=3, batch_size=16, dropout=0.3, mixup_alpha=0.4, cooldown_fraction=0.5)


class TestFakeTraining(TrainerContract):
    trainer = FakeTraining


def test_features_are_computed_again_only_for_a_different_key() -> None:
    cache, computed = FeatureCache(), []

    def compute() -> torch.Tensor:
        computed.append(1)
        return torch.zeros(1)

    for key, count in (("a", 1), ("a", 1), ("b", 2), ("a", 3)):
        cache.get(key, compute)
        assert len(computed) == count
