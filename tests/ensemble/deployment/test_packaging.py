"""Calibration of int8 files: the images, and the methods that compete."""

from pathlib import Path

import pytest

from ensemble.deployment.card import Card
from ensemble.deployment.packaging import TrainedStudent, calibration_images, export_student
from ensemble.deployment.quantize import METHODS
from quorum.testing.trainers import striped_images
from trainables.nets.build import empty_model
from trainables.recipe import Recipe

RECIPE = Recipe(block="plain", activation="relu", whitening=False, width=4, depth=1)


@pytest.mark.parametrize(("side", "count"), [(8, 512), (32, 512), (48, 227), (96, 128), (224, 128)])
def test_larger_images_need_fewer_for_calibration(side: int, count: int) -> None:
    """They show as many activations, down to 128 images, which differ enough from each other."""
    assert calibration_images(side) == count


@pytest.mark.slow
def test_a_network_of_another_architecture_has_its_own_best_method(tmp_path: Path) -> None:
    images, splits = striped_images()

    def packaged(recipe: Recipe, name: str, like: Card | None = None) -> Card:
        model = empty_model(recipe, classes=3, image_size=8).eval()
        student = TrainedStudent(
            model=model, recipe=recipe, seed=0, params=1, steps=1, train_seconds=1.0
        )
        return export_student(
            student, tmp_path / name, images=images, splits=splits, int8=True, like=like
        )

    def methods(card: Card) -> set[str]:
        assert card.quantization is not None
        return set(card.quantization.holdout_nll)

    first = packaged(RECIPE, "first")
    assert methods(first) == set(METHODS)
    assert methods(packaged(RECIPE.with_values(width=8), "wider", first)) == set(METHODS)
    assert len(methods(packaged(RECIPE, "alike", first))) == 1
