"""Grad-CAM: finds the evidence in any network with feature maps."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analysis.explain.grad_cam import grad_cam, target_layer
from tests.analysis.explain.nets import SIZE, Corner, Flat, classifier, spot
from trainables.nets.build import empty_model
from trainables.recipe import Recipe


def test_the_map_is_bright_at_the_evidence() -> None:
    pixels = np.stack([spot(2, 2), spot(10, 10)])
    maps = grad_cam(classifier(Corner()), pixels, np.array([0, 1]))
    assert maps.shape == (2, SIZE, SIZE)
    assert np.unravel_index(maps[0].argmax(), maps[0].shape) < (6, 6)
    assert np.unravel_index(maps[1].argmax(), maps[1].shape) >= (10, 10)
    assert (maps.min(), maps.max()) == pytest.approx((0.0, 1.0), abs=1e-5)


def test_test_time_augmentation_is_off_during_explanation() -> None:
    pixels, classes = np.stack([spot(2, 2), spot(10, 10)]), np.array([0, 1])
    several = classifier(Corner())
    several.tta = "mirror_translate"
    maps = grad_cam(several, pixels, classes)
    np.testing.assert_array_equal(maps, grad_cam(classifier(Corner()), pixels, classes))


@pytest.mark.parametrize("size", [8, 16, 32])
def test_built_in_networks_have_a_feature_map(size: int) -> None:
    net = empty_model(Recipe(width=4), classes=3, image_size=size).eval()
    layer, to_map = target_layer(net, torch.rand(1, 3, size, size))
    cells: list[int] = []
    layer.register_forward_hook(lambda _m, _i, output: cells.append(output.shape[2]))
    net(torch.rand(1, 3, size, size))
    assert cells[0] >= (4 if size > 8 else 2)
    assert to_map is None


@pytest.mark.parametrize("name", ["timm:resnet10t", "timm:test_vit", "timm:test_convnext"])
def test_timm_networks_are_explained(name: str) -> None:
    size = 160 if "vit" in name else 64
    net = empty_model(Recipe(model=name), classes=3, image_size=size).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    assert grad_cam(net, pixels, np.array([1])).shape == pixels.shape[:3]


class Tokens(nn.Module):
    """A class token and patch tokens; after a last exchange, only the class token is read."""

    num_prefix_tokens = 1

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, 4)
        self.before, self.after = nn.Identity(), nn.Identity()
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.before(torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1))
        exchanged = torch.cat([tokens.mean(dim=1, keepdim=True), tokens[:, 1:]], dim=1)
        logits: Tensor = self.head(self.after(exchanged)[:, 0])
        return logits


def test_the_last_tokens_that_influence_the_prediction_are_the_map() -> None:
    """After the exchange only the class token is read, so the patches there have no influence."""
    model = classifier(Tokens())
    layer, to_map = target_layer(model, torch.rand(1, 3, SIZE, SIZE))
    assert isinstance(model.net, Tokens)
    assert layer is model.net.before
    assert to_map is not None
    cells = to_map(torch.arange(17 * 6.0).reshape(1, 17, 6))
    assert cells.shape == (1, 6, 4, 4)
    assert cells[0, 0].flatten().tolist() == [6.0 * i for i in range(1, 17)]


def test_maps_do_not_depend_on_the_batch_size() -> None:
    pixels, classes = np.stack([spot(2, 2), spot(10, 10), spot(4, 9)]), np.array([0, 1, 0])
    whole = grad_cam(classifier(Corner()), pixels, classes)
    parts = grad_cam(classifier(Corner()), pixels, classes, batch_pixels=2 * SIZE**2)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_a_network_without_feature_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="feature map"):
        grad_cam(classifier(Flat()), spot(2, 2)[None], np.array([0]))
