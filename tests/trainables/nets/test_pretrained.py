"""Pretrained weights from a trial, a file with timm's names or its hub; misfits are refused."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from common.errors import SpecError
from quorum.testing.trainers import striped_images
from trainables.nets.build import build_model, empty_model
from trainables.nets.torch_file import is_torch_file
from trainables.recipe import Recipe
from trainables.weights import save_weights

CLASSES, SIZE = 3, 8
IMAGES, _ = striped_images()


def built(recipe: Recipe, *, classes: int = CLASSES) -> Any:
    return build_model(recipe, classes=classes, image_size=SIZE, train_images=IMAGES.images, seed=1)


def test_a_training_starts_from_the_weights_of_a_trial(tmp_path: Path) -> None:
    """The head starts at zero; the normalization comes with the others."""
    path = tmp_path / "weights.safetensors"
    source = build_model(
        Recipe(width=3), classes=7, image_size=SIZE, train_images=IMAGES.images[:9], seed=0
    )
    save_weights(source, path)
    weights = built(Recipe(width=3, pretrained=str(path))).state_dict()
    fresh = built(Recipe(width=3)).state_dict()
    for name, value in source.state_dict().items():
        expected = torch.zeros_like(fresh[name]) if name.startswith("net.head.") else value
        assert torch.equal(weights[name], expected), name
    assert not torch.equal(weights["mean"], fresh["mean"])


def test_a_training_starts_from_weights_with_timms_names(tmp_path: Path) -> None:
    """Files from a hub have no batch counters and a different number of classes."""
    path = tmp_path / "timm.safetensors"
    recipe = Recipe(model="timm:test_resnet")
    source = empty_model(recipe, classes=5, image_size=SIZE).net.state_dict()
    save_file({k: v for k, v in source.items() if "num_batches" not in k}, path)
    model = built(recipe.with_values(pretrained=str(path)))
    for name, value in model.net.state_dict().items():
        assert torch.equal(value, source[name]) != name.startswith("fc."), name
    torch.testing.assert_close(model.mean, torch.tensor(model.net.pretrained_cfg["mean"]))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(built(Recipe(width=3)), path)
    wider = Recipe(width=4, pretrained=str(path))
    with pytest.raises(SpecError, match=r"of shape \[3, 24, 3, 3\], .* needs \[4, 24, 3, 3\]"):
        built(wider)
    with pytest.raises(SpecError, match=r"lacks .* 'blocks.0.convs.2.weight'"):
        built(wider.with_values(width=3, depth=3))
    save_weights(built(Recipe(width=4, attention="se")), path)
    with pytest.raises(
        SpecError, match=r"has .* 'blocks\.0\.attention\..*, which the network lacks"
    ):
        built(wider)
    with pytest.raises(SpecError, match=r"none\.safetensors cannot be read: No such file"):
        built(wider.with_values(pretrained=str(tmp_path / "none.safetensors")))
    for content, message in (
        (b"\x80\x04pickle", "is not a whole file of torch.save .*; fetch it again"),
        (b"PK\x03\x04archive", "is not a whole file of torch.save "),
        (b"version https://git-lfs", "is not a whole safetensors file: .*; fetch it again"),
    ):
        path.write_bytes(content)
        with pytest.raises(SpecError, match=message):
            built(wider)
    with pytest.raises(SpecError, match="is a folder; name the file of weights in it"):
        built(wider.with_values(pretrained=str(tmp_path)))
    poisoned = built(Recipe(width=3))
    torch.nn.init.constant_(poisoned.net.blocks[0].convs[0].weight, float("nan"))
    save_weights(poisoned, path)
    with pytest.raises(SpecError, match=r"has 'net.blocks.0.convs.0.weight' with values that are"):
        built(Recipe(width=3, pretrained=str(path)))


def test_an_unreachable_hub_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        SpecError,
        match=r"'test_resnet' .* HF_HUB_OFFLINE .* \(pretrained: package with model: "
        r"timm:tf_efficientnet_lite0\)",
    ):
        built(Recipe(model="timm:test_resnet", pretrained="hub"))
    with pytest.raises(SpecError, match="package with model: timm:tf_efficientnet_lite2"):
        built(Recipe(model="timm:tf_efficientnet_lite2", pretrained="hub"))
    with pytest.raises(SpecError, match="pretrained: hub needs a model of timm, got 'conv"):
        built(Recipe(pretrained="hub"))


@pytest.mark.parametrize("length", [0x80, 0x0280, 0x0480, 0x8A0280])
def test_a_safetensors_file_of_any_header_length_is_not_taken_for_a_pickle(length: int) -> None:
    legacy, current = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.ones(2)}, legacy, _use_new_zipfile_serialization=False)
    torch.save({"a": torch.ones(2)}, current)
    assert is_torch_file(legacy.getvalue())
    assert is_torch_file(current.getvalue())
    assert not is_torch_file(length.to_bytes(8, "little") + b'{"a":{}}')


def test_the_new_head_starts_at_zero_so_every_class_is_equally_likely(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=7).state_dict(), path)
    recipe = Recipe(model="timm:resnet10t", pretrained=str(path))
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    model = build_model(
        recipe, classes=3, image_size=images.shape[1], train_images=images, seed=0
    ).eval()
    with torch.no_grad():
        logits = model(torch.rand(4, 3, images.shape[1], images.shape[1]))
    assert logits.abs().max() == 0
