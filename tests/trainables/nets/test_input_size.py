"""A network may see its images at another size than the data set's."""

import numpy as np
import pytest
import torch
from PIL import Image

from trainables.nets.build import build_model
from trainables.nets.classifier import resized
from trainables.nets.operations import operations_per_image
from trainables.recipe import Recipe


@pytest.mark.parametrize(("side", "target"), [(64, 32), (64, 24), (60, 7), (16, 48), (32, 96)])
def test_images_are_resized_as_pillow_does(side: int, target: int) -> None:
    rng = np.random.default_rng(side + target)
    small = rng.integers(0, 256, (8, 8, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))
    reference = Image.fromarray(pixels).resize((target, target), Image.Resampling.BILINEAR)
    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    found = resized(images, target)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - np.asarray(reference, np.float64)).max() <= 1.0


def test_a_network_of_its_own_input_size_takes_images_of_the_data_set() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    recipe = Recipe(width=4, input_size=32, whitening=True)
    model = build_model(recipe, classes=3, image_size=16, train_images=images, seed=0).eval()
    seen: list[int] = []
    model.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-1]))
    with torch.no_grad():
        assert model(torch.rand(2, 3, 16, 16)).shape == (2, 3)
    assert (model.image_size, model.input_size, seen) == (16, 32, [32])


def test_operations_grow_with_the_square_of_the_input_and_of_the_width() -> None:
    def count(**values: int) -> int:
        architecture = Recipe(whitening=False, **values).architecture
        return operations_per_image(architecture, classes=10, image_size=32)

    assert count(width=32, input_size=64) / count(width=32) == pytest.approx(4.0, rel=0.1)
    assert count(width=64) / count(width=32) == pytest.approx(4.0, rel=0.1)
    timm = Recipe(model="timm:tf_efficientnet_lite0", input_size=96).architecture
    assert operations_per_image(timm, classes=10, image_size=32) > 1e8
