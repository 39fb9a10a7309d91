"""Networks: shapes at every setting, whitening against a loop, published sizes, views."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from common.errors import SpecError
from common.seeds import numpy_generator, torch_generator
from trainables.augmentation.batch import shift_and_flip
from trainables.nets.build import build_model, empty_model
from trainables.nets.classifier import Classifier
from trainables.nets.convnet import ConvBlock, ConvNet, whitening_filters
from trainables.nets.image_statistics import patch_covariance
from trainables.recipe import Recipe


def noise(count: int = 20, size: int = 12, *, grey: bool = False) -> npt.NDArray[np.uint8]:
    rng = numpy_generator(0, "noise")
    images = rng.integers(0, 256, (count, size, size, 1 if grey else 3), dtype=np.uint8)
    return np.repeat(images, 3, axis=3) if grey else images


def build(recipe: Recipe, *, size: int = 12, seed: int = 0, grey: bool = False) -> Classifier:
    images = noise(size=size, grey=grey)
    return build_model(recipe, classes=5, image_size=size, train_images=images, seed=seed)


def batch(size: int = 12, count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch_generator(0, "batch"))


@given(
    size=st.sampled_from([8, 9, 12, 16, 33]),
    block=st.sampled_from(["airbench", "plain", "early"]),
    attention=st.sampled_from(["none", "se", "eca", "cbam"]),
    activation=st.sampled_from(["gelu", "relu", "silu", "mish", "hardswish"]),
    depth=st.integers(1, 4),
    width=st.sampled_from([1, 3, 8]),
    whitening=st.booleans(),
)
def test_every_convnet_trains_at_every_size(
    size: int, block: str, attention: str, activation: str, depth: int, width: int, whitening: bool
) -> None:
    recipe = Recipe.from_mapping(
        {"block": block, "attention": attention, "activation": activation, "depth": depth,
         "width": width, "whitening": whitening, "dropout": 0.1}
    )  # fmt: skip
    model = build(recipe, size=size)
    logits = model(batch(size))
    assert logits.shape == (4, 5)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        if name != "net.whitening.weight":
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name


def patches_oracle(images: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.array(
        [
            image[:, row : row + 2, column : column + 2].ravel()
            for image in images
            for row in range(image.shape[1] - 1)
            for column in range(image.shape[2] - 1)
        ]
    )


def test_whitening_equals_a_loop_over_patches() -> None:
    images = (batch(6, count=9) - 0.3) * torch.tensor([1.0, 3.0, 0.5])[:, None, None]
    rows = patches_oracle(images.double().numpy())
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    expected = (vectors / np.sqrt(values + 5e-4)).T[::-1]
    filters = whitening_filters(patch_covariance([images])).reshape(24, 12).numpy()
    signs = np.sign((filters[:12] * expected).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(filters[:12], signs * expected, atol=1e-4)
    np.testing.assert_array_equal(filters[12:], -filters[:12])


def test_whitened_patches_are_uncorrelated_with_unit_power() -> None:
    images = (batch(16, count=50) - 0.5) * 4
    output = functional.conv2d(images, whitening_filters(patch_covariance([images])))[:, :12]
    rows = output.permute(0, 2, 3, 1).reshape(-1, 12)
    np.testing.assert_allclose(rows.T @ rows / len(rows), np.eye(12), atol=2e-3)


def test_grey_images_have_no_dead_whitening_filter() -> None:
    model = build(Recipe(width=8), grey=True)
    assert isinstance(model.net, ConvNet)
    assert model.net.whitening is not None
    images = torch.from_numpy(noise(grey=True)).permute(0, 3, 1, 2) / 255
    normalized = (images - model.mean[:, None, None]) / model.std[:, None, None]
    power = functional.conv2d(normalized, model.net.whitening.weight).square().mean(dim=(0, 2, 3))
    np.testing.assert_allclose(power, 1, atol=0.01)
    assert len({tuple(f.flatten().tolist()) for f in model.net.whitening.weight[:12]}) == 4


def test_grey_images_have_the_same_gradient_in_bfloat16() -> None:
    """Dead filters made the gradient 10⁹ times too large."""
    labels, images = torch.arange(20) % 5, torch.from_numpy(noise(grey=True)).permute(0, 3, 1, 2)
    gradients = []
    for enabled in (False, True):
        model = build(Recipe(width=16), grey=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            logits = model(images / 255)
        loss = functional.cross_entropy(logits.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    assert float(functional.cosine_similarity(gradients[0], gradients[1], dim=0)) > 0.95
    assert float(gradients[1].norm() / gradients[0].norm()) == pytest.approx(1, abs=0.2)


def test_constant_images_give_finite_logits() -> None:
    images = np.full((6, 10, 10, 3), 128, dtype=np.uint8)
    model = build_model(Recipe(width=4), classes=3, image_size=10, train_images=images, seed=0)
    assert bool(model(batch(10)).isfinite().all())
    np.testing.assert_allclose(model.std, 1 / 255)


def test_normalization_uses_the_training_images_statistics() -> None:
    model = build(Recipe(width=4))
    pixels = noise().reshape(-1, 3) / 255
    np.testing.assert_allclose(model.mean, pixels.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.std, pixels.std(axis=0), rtol=1e-5)
    model.eval()
    images = batch()
    expected = model.net((images - model.mean[:, None, None]) / model.std[:, None, None])
    assert torch.equal(model(images), expected)


def test_convolutions_are_initialized_as_the_identity() -> None:
    model = build(Recipe(width=8, depth=3))
    convs = [
        module
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]
    assert len(convs) == 9
    for conv in convs:
        x = torch.randn(2, conv.in_channels, 6, 6, generator=torch_generator(0, "x"))
        kept = min(conv.in_channels, conv.out_channels)
        np.testing.assert_allclose(conv(x)[:, :kept].detach(), x[:, :kept], atol=1e-6)


@pytest.mark.parametrize("block", ["airbench", "plain", "early"])
def test_a_block_equals_its_layers_written_out(block: str) -> None:
    recipe = Recipe.from_mapping({"block": block, "depth": 4, "activation": "silu"})
    net = ConvBlock(recipe.architecture, 3, 6, pool=True).eval()
    generator = torch_generator(0, "norms")
    for norm in net.norms:
        nn.init.uniform_(norm.running_mean, generator=generator)  # type: ignore[arg-type]
        nn.init.uniform_(norm.weight, generator=generator)  # type: ignore[arg-type]
    c, n, x = net.convs, net.norms, batch()
    act, pool = functional.silu, functional.max_pool2d
    first = act(n[0](pool(c[0](x), 2) if block == "airbench" else c[0](x)))
    second = act(n[1](c[1](first)))
    third = act(n[2](c[2](second)) + first)
    fourth = act(n[3](c[3](third)) + second)
    expected = fourth if block == "airbench" else pool(fourth, 2)
    assert torch.equal(net(x), expected)


def test_initial_weights_depend_only_on_the_seed() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = build(Recipe(width=4), seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = (build(Recipe(width=4), seed=s).state_dict() for s in (3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["net.head.weight"], other["net.head.weight"])


def test_whitening_is_frozen_and_stays_in_float32() -> None:
    model = build(Recipe(width=4))
    assert isinstance(model.net, ConvNet)
    assert model.net.whitening is not None
    assert not model.net.whitening.weight.requires_grad
    assert model.net.whitening.bias is not None
    assert model.net.whitening.bias.requires_grad
    whitened: list[torch.Tensor] = []
    activated: list[torch.Tensor] = []
    model.net.whitening.register_forward_hook(lambda *args: whitened.append(args[2]))
    model.net.whitening_activation.register_forward_hook(lambda *args: activated.append(args[1][0]))
    model(batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(batch()).dtype == torch.bfloat16
    assert torch.equal(whitened[1], whitened[0]), "as without autocast"
    assert [x.dtype for x in activated] == [torch.float32, torch.bfloat16]
    assert torch.equal(activated[1], whitened[0].bfloat16())


VIEWS = {
    "none": [(1.0, 0, False)],
    "mirror": [(0.5, 0, False), (0.5, 0, True)],
    "mirror_translate": [
        (0.25, 0, False), (0.25, 0, True),
        (0.125, 1, False), (0.125, 1, True), (0.125, -1, False), (0.125, -1, True),
    ],
}  # fmt: skip
"""For each `tta`, its views: weight, shift down and right in pixels, and mirrored or not."""


@pytest.mark.parametrize("tta", sorted(VIEWS))
def test_predictions_average_the_views_and_training_uses_one(tta: str) -> None:
    model = build(Recipe.from_mapping({"width": 4, "tta": tta})).eval()
    images = batch()
    passes: list[int] = []
    averaged = model(images)
    model.tta = "none"
    expected = torch.zeros(4, 5)
    for weight, shift, mirrored in VIEWS[tta]:
        moved = shift_and_flip(
            images, shifts=torch.full((4, 2), shift), flips=torch.zeros(4, dtype=torch.bool)
        )
        expected += weight * model(moved.flip(3) if mirrored else moved)
    torch.testing.assert_close(averaged, expected)
    assert torch.allclose(averaged, model(images)) == (tta == "none")
    model.tta = tta
    model.net.register_forward_hook(lambda *_: passes.append(1))
    model(images)
    assert len(passes) == len(VIEWS[tta])
    model.train()(images)
    assert len(passes) == len(VIEWS[tta]) + 1


def test_mirror_views_give_an_image_and_its_mirror_image_equal_logits() -> None:
    images = batch()
    model = build(Recipe(width=4, tta="mirror")).eval()
    assert torch.equal(model(images), model(images.flip(3)))
    model.tta = "none"
    assert not torch.allclose(model(images), model(images.flip(3)))


def test_timm_models_have_the_same_interface() -> None:
    model = build(Recipe(model="timm:test_resnet", dropout=0.2), size=32)
    assert model(batch(32)).shape == (4, 5)
    assert model.training


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        ("convnet", 7, "at least 8 px, got 7"),
        ("timm:resnet81", 32, "no model 'resnet81'; did you mean 'resnet18'"),
        ("timm:test_vit", 8, "'test_vit' cannot take 8 px images"),
    ],
)
def test_impossible_networks_are_refused(model: str, size: int, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(Recipe(model=model), size=size)


@pytest.mark.parametrize(
    ("values", "classes", "params"),
    [
        # Published: 2.7M and 36.5M (Zagoruyko & Komodakis, 2016), 11.17M (kuangliu/pytorch-cifar).
        ({"model": "wrn-16-4"}, 10, 2_748_890),
        ({"model": "wrn-28-10"}, 10, 36_479_194),
        ({"model": "timm:resnet18", "stem": "small"}, 10, 11_173_962),
    ],
)
def test_parameter_counts_are_the_published_ones(
    values: dict[str, str], classes: int, params: int
) -> None:
    with torch.device("meta"):
        model = empty_model(Recipe.from_mapping(values), classes=classes, image_size=32)
    assert sum(parameter.numel() for parameter in model.parameters()) == params


def test_a_wide_resnet_trains_and_reduces_the_side_to_a_quarter() -> None:
    model = build(Recipe(model="wrn-10-1", dropout=0.1))
    net: Any = model.net
    assert net.forward_features(batch()).shape == (4, 64, 3, 3)
    model(batch()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "wrn-15-2"}, "depth of 10, 16, 22, 28, .* got 'wrn-15-2'"),
        ({"model": "timm:test_vit", "stem": "small"}, "'test_vit' has another stem"),
    ],
)
def test_impossible_depths_and_stems_are_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(Recipe.from_mapping(values), size=16)


@pytest.mark.parametrize("name", ["convnet", "wrn-10-1", "timm:test_resnet"])
def test_the_head_applied_to_the_features_gives_the_networks_logits(name: str) -> None:
    """All networks have timm's methods, so that heads can be trained alone."""
    net: Any = build(Recipe(model=name), size=16).net.eval()
    images = batch(16)
    features = net.forward_head(net.forward_features(images), pre_logits=True)
    assert features.ndim == 2
    torch.testing.assert_close(net.get_classifier()(features), net(images))
