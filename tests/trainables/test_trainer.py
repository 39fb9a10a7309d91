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


def test_features_are_kept_by_key_those_used_last_longest() -> None:
    """The cache has room for two tensors of 100 bytes; a larger one is kept alone."""
    cache, computed = FeatureCache(most_bytes=200), []

    def get(key: str, size: int = 25) -> None:
        def compute() -> torch.Tensor:
            computed.append(key)
            return torch.zeros(size)

        assert cache.get(key, compute).shape == (size,)

    for key in "abab":
        get(key)
    assert computed == ["a", "b"]
    get("a")
    get("c")  # in place of b
    get("a")
    assert computed == ["a", "b", "c"]
    get("b")  # in place of c
    assert computed[3:] == ["b"]
    assert cache.bytes == 200
    get("large", 1000)
    get("large", 1000)
    assert computed[4:] == ["large"]
    assert cache.bytes == 4000
