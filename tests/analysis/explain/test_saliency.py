"""Saliency: equals the gradient computed the slow way for any network, and is repeatable."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analysis.explain.explanations import COPIES, NOISE, PERCENTILE
from analysis.explain.saliency import smooth_grad

SIZE = 8


class Linear(nn.Module):
    """Two classes; the first one's logit is linear in the pixels, the second's is 0."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(scale * torch.randn((3, SIZE, SIZE), generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        first = (x * self.weight).sum(dim=(1, 2, 3))
        return torch.stack([first, torch.zeros_like(first)], dim=1)


def pictures(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def noise(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_map_of_a_linear_network_is_its_squared_weights() -> None:
    """∇ log p = ±(1 − p) w, so the map is w², the largest over the channels."""
    net = Linear()
    maps = smooth_grad(net, pictures(), np.array([0, 1, 0]), generator=noise())
    weights = net.weight.detach().square().amax(dim=0).double().numpy()
    expected = np.minimum(weights / np.percentile(weights, PERCENTILE), 1.0)
    for values in maps:
        np.testing.assert_allclose(values, expected, rtol=1e-4)
    assert maps.dtype == np.float32


def test_a_certain_prediction_still_has_a_map() -> None:
    """In float32 its probability is 1, and 1 − p would be 0."""
    white = np.full((1, SIZE, SIZE, 3), 255, np.uint8)
    net = Linear()
    with torch.no_grad():
        net.weight.abs_().mul_(0.3)
    sure = smooth_grad(net, white, np.array([0]), generator=noise())
    logit = float(net(torch.ones(1, 3, SIZE, SIZE))[0, 0].detach())
    assert torch.softmax(torch.tensor([logit, 0.0]), dim=0)[0] == 1.0
    weights = net.weight.detach().square().amax(dim=0).double().numpy()
    expected = np.minimum(weights / np.percentile(weights, PERCENTILE), 1.0)
    np.testing.assert_allclose(sure[0], expected, rtol=1e-4)


def test_maps_average_squared_gradients_over_noisy_copies() -> None:
    """The slow way: one copy at a time, through log_softmax."""
    torch.manual_seed(3)  # the layers draw from the global stream
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    pixels, classes = pictures(2), np.array([2, 0])
    maps = smooth_grad(net, pixels, classes, generator=noise())
    generator = noise()
    for image, label, values in zip(pixels, classes, maps, strict=True):
        clean = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        drawn = torch.randn((COPIES, 3, SIZE, SIZE), generator=generator)
        total = torch.zeros(3, SIZE, SIZE)
        for each in drawn:
            x = (clean + NOISE * (clean.max() - clean.min()) * each)[None].requires_grad_()
            net(x).log_softmax(1)[0, int(label)].backward()
            assert x.grad is not None
            total += x.grad[0] ** 2 / COPIES
        slow = total.amax(dim=0).numpy()
        slow = np.minimum(slow / np.percentile(slow, PERCENTILE), 1.0)
        np.testing.assert_allclose(values, slow, rtol=1e-3, atol=1e-5)
    parts = smooth_grad(net, pixels, classes, generator=noise(), batch_pixels=5 * SIZE**2)
    np.testing.assert_allclose(parts, maps, rtol=1e-4, atol=1e-6)


def test_equal_noise_gives_equal_maps_and_different_noise_does_not() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 8), nn.GELU(), nn.Linear(8, 3))
    pixels, classes = pictures(2), np.array([2, 0])
    first = smooth_grad(net, pixels, classes, generator=noise())
    np.testing.assert_array_equal(first, smooth_grad(net, pixels, classes, generator=noise()))
    assert not np.array_equal(first, smooth_grad(net, pixels, classes, generator=noise(6)))
    assert 0 <= first.min() <= first.max() == 1.0


def test_an_image_without_influence_gets_zeros() -> None:
    maps = smooth_grad(Linear(0.0), pictures(1), np.array([0]), generator=noise())
    assert not maps.any()


def test_gradients_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        smooth_grad(Linear(float("nan")), pictures(1), np.array([0]), generator=noise())
