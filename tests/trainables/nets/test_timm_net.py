"""timm's networks: dropped paths, vision transformers of other sizes, images of other channels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from common.errors import SpecError
from common.seeds import numpy_generator
from trainables.initial_weights import PACKAGED
from trainables.nets.build import build_model, empty_model
from trainables.nets.drop_path import branch_drop_rates
from trainables.recipe import Recipe
from trainables.weights import RGB, save_weights

CLASSES = 3


def built(recipe: Recipe, *, size: int = 32, channels: int = RGB) -> Any:
    images = numpy_generator(0, "pixels").integers(
        0, 256, (6, size, size, channels), dtype=np.uint8
    )
    return build_model(recipe, classes=CLASSES, image_size=size, train_images=images, seed=1)


def drop_rates(net: torch.nn.Module) -> list[float]:
    return [m.drop_prob for m in net.modules() if type(m).__name__ == "DropPath"]  # type: ignore[misc]


@pytest.mark.parametrize("model", ["wrn-16-1", "timm:test_vit", PACKAGED[0].model])
def test_dropped_paths_rise_along_the_network_and_rest_in_predictions(model: str) -> None:
    """Without dropped paths, a training step and a prediction in training mode are the same."""
    recipe = Recipe(model=model, drop_path=0.4)
    rates = drop_rates(built(recipe).net)
    assert rates == sorted(rates)
    assert len(rates) > 1
    assert 0.2 < rates[-1] < 0.4 + 1e-6
    assert drop_rates(built(recipe.with_values(drop_path=0.0)).net) == []
    net, images = built(recipe), torch.rand(4, RGB, 32, 32)
    assert torch.equal(net.eval()(images), net(images))
    net.load_state_dict(built(recipe.with_values(drop_path=0.0)).state_dict())


def test_kept_branches_make_up_for_dropped_ones() -> None:
    """Over many draws, the mean output of a block equals its output without dropping."""
    plain, dropping = (built(Recipe(model="wrn-10-1", drop_path=rate)) for rate in (0.0, 0.5))
    images = torch.rand(1, RGB, 32, 32)
    last_plain, last_dropping = plain.net.body[3].eval(), dropping.net.body[3]
    x = plain.net.body[:3].eval()(images)
    last_dropping.load_state_dict(last_plain.state_dict())
    last_dropping.eval().drop_path.train()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        outputs = last_dropping(x.expand(4000, -1, -1, -1))
        expected = last_plain(x)[0]
    deviation = (outputs[0] - expected).abs().max()  # the branch's output, kept twice or dropped
    # Four standard errors of 4,000 coins.
    assert (outputs.mean(0) - expected).abs().max() < 4 / 4000**0.5 * deviation


def test_drop_rates_rise_linearly_from_zero() -> None:
    assert branch_drop_rates(0.4, 5) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("model", ["convnet", "timm:vgg11", "timm:ghostnet_050"])
def test_networks_without_paths_to_drop_refuse_it(model: str) -> None:
    empty_model(Recipe(model=model), classes=CLASSES, image_size=32)
    with pytest.raises(SpecError, match=r"(depth|blocks); set drop_path to 0 instead of 0\.1"):
        empty_model(Recipe(model=model, drop_path=0.1), classes=CLASSES, image_size=32)


@pytest.mark.parametrize("model", ["test_vit", "test_vit2"])
@pytest.mark.parametrize("size", [48, 160, 192])
def test_vision_transformers_take_weights_of_another_size(
    model: str, size: int, tmp_path: Path
) -> None:
    """Position embeddings are interpolated as timm does for its own weights; the rest is equal."""
    source = timm.create_model(model, num_classes=7)
    torch.nn.init.normal_(
        source.get_parameter("pos_embed"), generator=torch.Generator().manual_seed(0)
    )
    path = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), path)
    recipe = Recipe(model=f"timm:{model}", pretrained=str(path))
    actual = built(recipe, size=size).net
    expected = timm.create_model(
        model, pretrained=True, num_classes=CLASSES, img_size=size,
        pretrained_cfg_overlay={"state_dict": source.state_dict(), "num_classes": 7},
    )  # fmt: skip
    for name, value in expected.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(actual.state_dict()[name], value), name
    assert (actual.pos_embed.shape == source.pos_embed.shape) == (size == 160)


def test_a_trial_of_a_vision_transformer_starts_another_of_another_size(tmp_path: Path) -> None:
    recipe = Recipe(model="timm:test_vit")
    save_weights(built(recipe, size=48), tmp_path / "weights.safetensors")
    larger = recipe.with_values(pretrained=str(tmp_path / "weights.safetensors"))
    assert built(larger, size=64).eval()(torch.rand(2, RGB, 64, 64)).isfinite().all()


@pytest.mark.parametrize("channels", [1, 2, 5, 6])
def test_pretrained_networks_adapt_to_other_channels_as_timm_does(channels: int) -> None:
    recipe = Recipe(model=PACKAGED[0].model, pretrained="package")
    model, rgb = built(recipe, channels=channels), built(recipe)
    weight, original = model.net.conv_stem.weight, rgb.net.conv_stem.weight
    if channels == 1:
        expected = original.sum(1, keepdim=True)
    else:
        expected = original[:, [c % RGB for c in range(channels)]] * RGB / channels
    torch.testing.assert_close(weight, expected)
    assert model.mean.tolist() == model.std.tolist() == [0.5] * channels
    grey = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        features = model.eval().features(grey.expand(-1, channels, -1, -1))
        same = rgb.eval().features(grey.expand(-1, RGB, -1, -1))
    if channels in (1, 2 * RGB):  # no colour counts more often than another
        torch.testing.assert_close(features, same)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("model", ["convnet", "wrn-10-1", "timm:test_resnet", "timm:test_vit"])
def test_networks_from_scratch_take_any_channels(model: str, channels: int) -> None:
    net = built(Recipe(model=model), channels=channels)
    assert net.mean.shape == net.std.shape == (channels,)
    logits = net(torch.rand(4, channels, 32, 32))
    assert logits.shape == (4, CLASSES)
    assert logits.isfinite().all()
