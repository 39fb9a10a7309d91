"""Attention weights: read from the right modules, averaged by image and class."""

import numpy as np
import pytest
import torch

from analysis.explain.attention import attention_modules, attention_weights
from analysis.facts.data import RunImages, find_images
from search.space.sweep_files import load_spec
from tests.events import run_started
from trainables.data.image_set import ImageSet
from trainables.data.splits import SplitSpec
from trainables.nets.build import empty_model
from trainables.nets.classifier import Classifier
from trainables.recipe import Recipe

SIZE = 12
LAYERS = {
    "se": [(f"block {i}", "channel") for i in (1, 2, 3)],
    "eca": [(f"block {i}", "channel") for i in (1, 2, 3)],
    "cbam": [(f"block {i}", by) for i in (1, 2, 3) for by in ("channel", "place")],
    "none": [],
}


def net(attention: str) -> Classifier:
    torch.manual_seed(0)
    recipe = Recipe.from_mapping({"width": 8, "depth": 1, "attention": attention})
    return empty_model(recipe, classes=3, image_size=SIZE).eval()


@pytest.fixture(scope="module")
def images() -> RunImages:
    rng = np.random.default_rng(0)
    made = ImageSet(
        name="made", images=rng.integers(0, 256, (400, SIZE, SIZE, 3), dtype=np.uint8),
        labels=np.arange(400, dtype=np.int64) % 3, class_names=("a", "b", "c"),
        fingerprint="sha256:made",
    )  # fmt: skip
    spec = load_spec("digits").with_values(splits=SplitSpec(floor=0, val=0.2, holdout=0.2))
    run_images, _ = find_images(made, spec, run_started(fingerprint="sha256:made"))
    assert run_images is not None
    return run_images


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_attention_modules_output_the_factors_of_the_feature_map(kind: str) -> None:
    model = net(kind)
    modules = attention_modules(model)
    assert list(modules) == LAYERS[kind]
    if not modules:
        return
    seen: dict[str, torch.Tensor] = {}
    attention = model.net.blocks[0].attention  # type: ignore[union-attr, index]
    part = getattr(attention, "channel", attention)
    part.register_forward_hook(lambda _m, inputs, output: seen.update(x=inputs[0], y=output))
    next(iter(modules.values())).register_forward_hook(lambda _m, _i, out: seen.update(gate=out))
    with torch.no_grad():
        model(torch.rand(2, 3, SIZE, SIZE))
    weights = seen["gate"].reshape(2, -1, 1, 1)
    torch.testing.assert_close(seen["x"] * weights, seen["y"])


@pytest.mark.parametrize("kind", ["se", "eca", "cbam"])
def test_weights_are_averaged_over_val_and_over_each_class(kind: str, images: RunImages) -> None:
    model = net(kind)
    val = images.splits.val
    collected: list[np.ndarray] = []
    first = next(iter(attention_modules(model).values()))
    handle = first.register_forward_hook(
        lambda _m, _i, output: collected.append(output.numpy().reshape(1, -1))
    )
    pixels = torch.from_numpy(images.image_set.images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        for index in val:
            model(pixels[index : index + 1])
    handle.remove()
    one_by_one = np.concatenate(collected)
    weights = attention_weights(model, images, trial="t0001", kind=kind)
    layer = weights.layers[0]
    assert (weights.trial, weights.kind, weights.images) == ("t0001", kind, len(val))
    np.testing.assert_allclose(layer.mean, one_by_one.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(layer.spread, one_by_one.std(axis=0), atol=1e-5)
    labels = images.image_set.labels[val]
    for k in range(3):
        expected = one_by_one[labels == k].mean(axis=0)
        np.testing.assert_allclose(layer.class_means[k], expected, atol=1e-5)
    assert not any(module._forward_hooks for module in model.modules()), "no hook is left"


def test_a_class_without_images_has_no_mean(images: RunImages) -> None:
    torch.manual_seed(0)
    recipe = Recipe.from_mapping({"width": 8, "depth": 1, "attention": "se"})
    model = empty_model(recipe, classes=4, image_size=SIZE).eval()
    means = attention_weights(model, images, trial="t", kind="se").layers[0].class_means
    assert np.isnan(means[3]).all()
    assert np.isfinite(means[:3]).all()


def test_spatial_weights_are_kept_for_the_shown_images(images: RunImages) -> None:
    shown = images.image_set.images[:4]
    weights = attention_weights(net("cbam"), images, trial="t", kind="cbam", shown=shown)
    assert weights.pixels is shown
    assert [layer.side for layer in weights.layers] == [None, 5, None, 2, None, 1]
    assert [layer.block for layer in weights.channel_layers] == ["block 1", "block 2", "block 3"]
    kept = [
        (layer.block, layer.shown.shape)
        for layer in weights.shown_layers
        if layer.shown is not None
    ]
    assert kept == [("block 1", (4, 5, 5)), ("block 2", (4, 2, 2))], "one cell has no position"
    channels_only = attention_weights(net("se"), images, trial="t", kind="se", shown=shown)
    assert (channels_only.pixels, channels_only.shown_layers) == (None, ())


def test_a_network_without_attention_is_refused(images: RunImages) -> None:
    with pytest.raises(ValueError, match="no attention"):
        attention_weights(net("none"), images, trial="t", kind="none")
