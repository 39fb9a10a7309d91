"""Recalibrated batch normalization: equal to one pass over everything, whatever the batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.trainables.training.test_loop import start
from tests.waits import META, no_waits
from trainables.nets.build import build_model
from trainables.nets.classifier import Classifier
from trainables.prediction import PixelSource
from trainables.recipe import Numerics, Recipe
from trainables.stages import Stage
from trainables.training.recalibration import PooledMoments, is_recalibrated, recalibrate
from trainables.weights import save_weights

COUNT, SIZE = 256, 16
EVERYTHING = torch.arange(COUNT)


def pictures(seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return images of very different contrast and colour, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (COUNT, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return np.asarray(coarse * rng.uniform(0.1, 1, (COUNT, 1, 1, 1)), dtype=np.uint8)


PICTURES = pictures()
SOURCE = PixelSource(PICTURES, np.arange(COUNT), Numerics())


def some_model(seed: int = 0, **values: Any) -> Classifier:
    recipe = Recipe(**{"width": 6, "depth": 2, "dropout": 0.5, **values})
    return build_model(recipe, classes=5, image_size=SIZE, train_images=PICTURES, seed=seed)


def norms_of(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def reference(model: Classifier) -> list[tuple[Tensor, Tensor]]:
    """Return every layer's mean and variance in one pass with all images in one batch."""
    model.eval()
    for norm in norms_of(model):
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(SOURCE.batch(EVERYTHING))
    found = []
    for norm in norms_of(model):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        found.append((norm.running_mean.clone(), norm.running_var.clone()))
        norm.reset_running_stats()
        norm.momentum = 0.1
    return found


def errors(model: Classifier, truth: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Return the largest error of a mean, in standard deviations, and of a ratio of variances."""
    shifts, ratios = [0.0], [0.0]
    for norm, (mean, variance) in zip(norms_of(model), truth, strict=True):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        deviation = (variance + norm.eps).sqrt()
        shifts.append(float(((norm.running_mean - mean).abs() / deviation).max()))
        ratios.append(
            float(((norm.running_var + norm.eps) / (variance + norm.eps) - 1).abs().max())
        )
    return max(shifts), max(ratios)


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    shape=st.sampled_from([(), (3,), (2, 3)]),
    seed=st.integers(0, 999),
)
def test_moments_of_batches_equal_those_of_all_values(
    sizes: list[int], shape: tuple[int, ...], seed: int
) -> None:
    """Also if every batch is measured a second time, with other values."""
    generator = torch.Generator().manual_seed(seed)
    moments = PooledMoments()
    for _ in range(2):
        parts = [torch.randn(size, 4, *shape, generator=generator) * 3 + 7 for size in sizes]
        for index, part in enumerate(parts):
            moments.put(index, part)
    values = torch.cat(parts).double().transpose(0, 1).reshape(4, -1)
    torch.testing.assert_close(moments.mean, values.mean(dim=1), rtol=1e-5, atol=1e-5)
    expected = values.var(dim=1) if values.shape[1] > 1 else torch.zeros(4).double()
    torch.testing.assert_close(moments.variance, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [7, 64, COUNT])
@pytest.mark.parametrize("model", ["convnet", "wrn-10-1"])
def test_statistics_do_not_depend_on_the_batches(model: str, batch: int) -> None:
    """Averages of the batches' variances were down to 0.02 of the truth; three networks each."""
    for seed in range(3):
        net = some_model(seed, model=model)
        truth = reference(net)
        state = torch.random.get_rng_state()
        recalibrate(net, SOURCE, EVERYTHING, Numerics(), batch=batch)
        assert torch.equal(torch.random.get_rng_state(), state), "dropout is inactive"
        assert not any(module.training for module in net.modules())
        assert all(norm.momentum == 0.1 for norm in norms_of(net))
        shift, ratio = errors(net, truth)
        assert shift < 0.03, (seed, shift)
        assert ratio < 0.06, (seed, ratio)


def test_batches_of_one_image_and_one_pixel_are_enough() -> None:
    """Training mode refuses them, and the mean of their variances is 0."""
    net = some_model()
    truth = reference(net)
    recalibrate(net, SOURCE, EVERYTHING, Numerics(), batch=1)
    shift, ratio = errors(net, truth)
    assert shift < 0.03
    assert ratio < 0.06


@pytest.mark.parametrize("start_at", [(0.0, 1.0), (50.0, 1e-6), (-3.0, 1e4)])
def test_the_result_does_not_depend_on_the_statistics_before(
    start_at: tuple[float, float],
) -> None:
    net, other = some_model(), some_model()
    for norm in norms_of(other):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.fill_(start_at[0])
        norm.running_var.fill_(start_at[1])
    for each in (net, other):
        recalibrate(each, SOURCE, EVERYTHING, Numerics(), batch=COUNT // 2)
    for a, b in zip(norms_of(net), norms_of(other), strict=True):
        torch.testing.assert_close(a.running_mean, b.running_mean, rtol=0.02, atol=0.02)
        torch.testing.assert_close(a.running_var, b.running_var, rtol=0.05, atol=0.02)


def test_a_single_batch_is_measured_without_waiting_for_the_device() -> None:
    """The meta device refuses to read a value; a second pass needs the statistics' changes."""
    source = PixelSource(PICTURES, np.arange(COUNT), Numerics(device=META))
    net = some_model().to(META)
    positions = EVERYTHING.to(META)
    with no_waits():
        recalibrate(net, source, positions, Numerics(device=META), batch=COUNT)
    with pytest.raises(RuntimeError, match="meta"):
        recalibrate(net, source, positions, Numerics(device=META), batch=COUNT // 2)


def test_a_network_without_batch_normalization_is_left_alone() -> None:
    net = Classifier(
        nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 5)), classes=5, image_size=SIZE
    )
    recalibrate(net, SOURCE, EVERYTHING, Numerics())
    assert not net.training


def test_only_networks_trained_from_scratch_are_recalibrated(tmp_path: Path) -> None:
    """Pretrained ones are scored with the moving average of their running statistics."""
    assert is_recalibrated(Recipe())
    assert not is_recalibrated(Recipe(pretrained="package", model="timm:tf_efficientnet_lite0"))
    scratch = Recipe(width=3, epochs=2, batch_size=16, ema_decay=0.0)
    path = str(tmp_path / "weights.safetensors")
    save_weights(start(scratch, rungs=(2,)).model, path)
    for recipe in (
        scratch.with_values(pretrained=path),
        scratch.with_values(pretrained=path, stages=(Stage(epochs=1, train="head"), Stage())),
    ):
        training = start(recipe, rungs=(2,))
        list(training.reports())
        for name, value in training.model.state_dict().items():
            assert torch.equal(training.scored_model().state_dict()[name], value), name
    training = start(scratch, rungs=(2,))
    list(training.reports())
    name = next(name for name in training.model.state_dict() if name.endswith("running_var"))
    scored = training.scored_model().state_dict()[name]
    assert not torch.equal(scored, training.model.state_dict()[name])
