"""Parameter groups: nothing is left out; layer decay, weight decay and Muon by parameter."""

from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from torch import nn

from common.errors import SpecError
from trainables.nets.build import empty_model
from trainables.nets.classifier import Classifier
from trainables.nets.head import head_weight_names, linear_head
from trainables.recipe import Recipe
from trainables.training.parameter_groups import hidden_matrices, parameter_groups

AUXILIARY: dict[str, Any] = {
    "rotation_weight": 0.5, "superclass_weight": 0.5, "superclasses": (("a",),),
}  # fmt: skip
MODELS = ("convnet", "wrn-10-1", "timm:test_resnet", "timm:test_efficientnet", "timm:test_vit")


def build(name: str, **values: Any) -> Classifier:
    recipe = Recipe(model=name, width=4, **values)
    with torch.device("cpu"):
        return empty_model(recipe, classes=3, image_size=160 if "vit" in name else 32)


def values_of(model: nn.Module, groups: list[dict[str, Any]], key: str) -> dict[str, float]:
    """Return the group's value of every parameter by name; each must be in one group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    pairs = [(names[id(p)], group[key]) for group in groups for p in group["params"]]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize("stage", ["all", "head"])
def test_every_trainable_parameter_is_in_exactly_one_group(
    name: str, optimizer: str, layer_decay: float, stage: str
) -> None:
    for auxiliary in ({}, AUXILIARY):
        for bias_lr_scale in (1.0, 8.0):
            recipe = {
                "optimizer": optimizer,
                "bias_lr_scale": bias_lr_scale,
                "layer_decay": layer_decay,
            }
            model = build(name, **auxiliary)
            if stage == "head":
                model.requires_grad_(False)
                linear_head(model.net, name).requires_grad_(True)
            groups = parameter_groups(model, Recipe(**recipe).optimizer)
            trainable = {n for n, p in model.named_parameters() if p.requires_grad}
            assert values_of(model, groups, "lr_scale").keys() == trainable
            assert all(group["params"] for group in groups)


@pytest.mark.parametrize("name", MODELS)
def test_layer_decay_and_weight_decay_are_those_of_timm(name: str) -> None:
    model = build(name, **AUXILIARY)
    groups = parameter_groups(model, Recipe(weight_decay=0.1, layer_decay=0.5).optimizer)
    net: Any = model.net
    expected = param_groups_layer_decay(
        net,
        weight_decay=0.1,
        layer_decay=0.5,
        no_weight_decay_list=net.no_weight_decay() if hasattr(net, "no_weight_decay") else (),
    )
    for key in ("lr_scale", "weight_decay"):
        actual = values_of(model, groups, key)
        timms = values_of(model, expected, key)
        assert {n: v for n, v in actual.items() if not n.startswith("auxiliary.")} == timms
        if key == "lr_scale":
            heads = {f"net.{n}" for n in head_weight_names(net)}
            heads |= {n for n in actual if n.startswith("auxiliary.")}
            assert len(heads) == 6
            assert all(actual[n] == 1.0 for n in heads)
            assert min(actual.values()) <= 0.25


def test_names_that_a_network_excludes_are_not_decayed() -> None:
    model = build("timm:test_vit")
    decays = values_of(model, parameter_groups(model, Recipe().optimizer), "weight_decay")
    assert decays["net.pos_embed"] == decays["net.cls_token"] == 0
    assert decays["net.blocks.0.attn.qkv.weight"] == Recipe().optimizer.weight_decay

    class Patterned(nn.Sequential):
        def no_weight_decay(self) -> set[str]:
            return {"0.*"}

    patterned = Patterned(nn.Linear(4, 4), nn.Linear(4, 4))
    decays = values_of(patterned, parameter_groups(patterned, Recipe().optimizer), "weight_decay")
    assert {name for name, decay in decays.items() if decay} == {"1.weight"}


@pytest.mark.parametrize(
    ("name", "apart"),
    [
        ("convnet", {"whitening.weight", "head.weight"}),
        ("wrn-10-1", {"body.0.weight", "head.weight"}),
        ("timm:test_resnet", {"conv1.0.weight", "fc.weight"}),
        ("timm:test_efficientnet", {"conv_stem.weight", "classifier.weight"}),
        ("timm:test_vit", {"patch_embed.proj.weight", "head.weight", "pos_embed", "cls_token"}),
    ],
)
def test_muon_is_for_the_hidden_matrices_only(name: str, apart: set[str]) -> None:
    model = build(name, **AUXILIARY)
    net = model.net
    matrices = {n for n, p in net.named_parameters() if p.ndim >= 2}
    assert matrices - hidden_matrices(net) == apart
    recipe = Recipe(optimizer="muon")
    groups = parameter_groups(model, recipe.optimizer)
    fallback = values_of(model, groups, "use_fallback")
    assert {n for n, value in fallback.items() if not value} == {
        f"net.{n}" for n in hidden_matrices(net)
    }


@pytest.mark.parametrize(
    "name",
    ["resnet18", "efficientnet_lite0", "vit_tiny_patch16_224", "convnext_atto", "regnetx_002"],
)
def test_the_first_layer_is_the_one_that_timm_names(name: str) -> None:
    net: Any = timm.create_model(name, num_classes=3)
    matrices = {n for n, p in net.named_parameters() if p.ndim >= 2}
    assert f"{net.pretrained_cfg['first_conv']}.weight" in matrices - hidden_matrices(net)


def test_embeddings_are_not_orthogonalized() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Embedding(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    assert hidden_matrices(net) == {"2.weight"}


def test_layer_decay_without_layers_is_refused() -> None:
    with pytest.raises(SpecError, match="Sequential has none"):
        parameter_groups(nn.Sequential(nn.Linear(2, 2)), Recipe(layer_decay=0.5).optimizer)
