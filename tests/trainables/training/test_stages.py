"""Stages: where they begin, what they may change, and that a head learns alone."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from common.errors import SpecError
from common.seeds import torch_generator
from tests.trainables.training.test_loop import CLASSES, IMAGES, SIZE, SPLITS, start
from trainables.nets.build import build_model, empty_model
from trainables.prediction import PixelSource
from trainables.recipe import Numerics, Recipe
from trainables.stages import Stage, stage_at, starts
from trainables.trainer import FeatureCache
from trainables.training.active_stage import ActiveStage
from trainables.training.optimizers import make_optimizer
from trainables.training.schedule import learning_rate, plan_epochs
from trainables.weights import save_weights

HEAD_FIRST = (Stage(epochs=2, train="head", values={"augment": "none"}), Stage(lr_scale=0.1))


@given(lengths=st.lists(st.integers(1, 5), max_size=4), epoch=st.integers(1, 30))
def test_stages_follow_each_other(lengths: list[int], epoch: int) -> None:
    stages = (*(Stage(epochs=length) for length in lengths), Stage())
    owners = [index for index, length in enumerate(lengths) for _ in range(length)]
    expected = owners[epoch - 1] if epoch <= len(owners) else len(lengths)
    assert stage_at(stages, epoch) == expected
    assert starts(stages)[expected] < epoch
    assert stage_at(stages, 0) == stage_at((), epoch) == 0


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"values": {"width": 2}}], r"stages\[0\]: a stage cannot change 'width'; it can change"),
        ([{"values": {"translate": -2}}], r"stages: values: translate must lie in \[0, 4096\]"),
        ([{"values": {"flip": "yes please"}}], r"stages: values: flip: expected .*'yes please'"),
        ([{"epochs": 2}], "the last one has all remaining epochs; remove its epochs: 2"),
        ([{}, {}], "stage 1 of 2 needs its number of epochs"),
        ([{"epochs": 0}, {}], r"stages\[0\]: epochs must be at least 1, got 0"),
        ([{"lr_scale": 0}], r"lr_scale must lie in \(0, 1000\], got 0"),
        ([{"layer_decay": 1.5}], r"layer_decay must lie in \(0, 1\], got 1.5"),
    ],
)
def test_stages_that_cannot_be_are_refused(stages: list[Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Recipe.from_mapping({"stages": stages})


def test_every_stage_warms_up_to_its_own_rate() -> None:
    stages = (Stage(epochs=3), Stage(lr_scale=0.1, values={"warmup_epochs": 2}))
    recipe = Recipe(epochs=8, adamw_lr=1.0, optimizer="adamw", cooldown_fraction=0.2, stages=stages)
    assert Recipe.from_mapping(recipe.to_mapping()) == recipe
    plans = plan_epochs((8,), recipe)
    assert [plan.stage for plan in plans] == [0, 0, 0, 1, 1, 1, 1, 1]
    rates = [learning_rate(plan, 0.5, recipe) for plan in plans]
    assert rates == pytest.approx([0.5, 1, 1, 0.025, 0.075, 0.1, 0.075, 0.025])


@pytest.mark.parametrize("name", ["convnet", "wrn-10-1", "timm:test_resnet"])
def test_earlier_layers_learn_at_lower_rates(name: str) -> None:
    recipe = Recipe(model=name, width=4)
    model = empty_model(recipe, classes=3, image_size=32)
    optimizer = make_optimizer(model, recipe.optimizer, layer_decay=0.5)
    scales = {id(p): g["lr_scale"] for g in optimizer.param_groups for p in g["params"]}
    learnt = [p for p in model.parameters() if p.requires_grad]
    assert scales.keys() == {id(p) for p in learnt}
    assert scales[id(learnt[-1])] == 1.0  # the head
    assert scales[id(learnt[0])] == min(scales.values()) < 0.3


def test_where_only_the_head_learns_nothing_else_changes() -> None:
    """Neither weights nor statistics; then, in the next stage, all do but the whitening."""
    training = start(Recipe(width=3, epochs=4, batch_size=16, stages=HEAD_FIRST), rungs=(4,))
    before = {name: value.clone() for name, value in training._model.state_dict().items()}
    reports = training.reports()

    def changed() -> set[str]:
        now = training._model.state_dict()
        return {name for name, value in before.items() if not torch.equal(now[name], value)}

    next(reports)
    next(reports)
    assert changed() == {"net.head.weight", "net.head.bias"}
    next(reports)
    assert changed() == before.keys() - {"mean", "std", "net.whitening.weight"}


@pytest.mark.parametrize("flip", [False, True])
def test_features_that_are_kept_are_those_of_the_images(flip: bool) -> None:
    stage = Stage(train="head", values={"translate": 0, "flip": flip})
    recipe = Recipe(width=3, stages=(stage,))
    images = IMAGES.images
    model = build_model(recipe, classes=CLASSES, image_size=SIZE, train_images=images, seed=0)
    source = PixelSource(images, SPLITS.train, Numerics())
    positions = torch.tensor([3, 0, 9, 3])
    labels = torch.zeros(4, dtype=torch.int64)
    turned = torch.tensor([True, False, True, False]) if flip else None
    logits = []
    for reuse in (True, False):
        active = ActiveStage(model, recipe, source, Numerics(), reuse_features=reuse)
        active.start_epoch(1)
        batch = active.batch(positions, labels, torch_generator(0, "a"), flips=turned)
        assert batch.images.ndim == (2 if reuse else 4)
        logits.append(active.outputs(batch)[0])
    torch.testing.assert_close(*logits)


def test_features_are_computed_once_for_all_trainings_that_begin_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed: list[int] = []
    compute = ActiveStage._compute_features

    def counted(active: ActiveStage) -> Any:
        computed.append(1)
        return compute(active)

    monkeypatch.setattr(ActiveStage, "_compute_features", counted)
    stage = Stage(train="head", values={"augment": "none"})
    cache, recipe = FeatureCache(), Recipe(width=3, epochs=1, batch_size=16, stages=(stage,))

    def score(**changes: Any) -> float:
        training = start(recipe.with_values(**changes), rungs=(1,), features=cache)
        return [report.val_nll for report in training.reports()][-1]

    alone = [report.val_nll for report in start(recipe, rungs=(1,)).reports()][-1]
    computed.clear()
    assert score() == score() == alone
    assert score(lr_per_1024=0.1) != alone
    assert len(computed) == 1
    score(width=4)
    assert len(computed) == 2
    assert score() == alone
    assert len(computed) == 3


def linear(*, classes: int, image_size: int, recipe: Recipe) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, classes))


def test_a_net_without_a_known_head_cannot_train_it_alone() -> None:
    recipe = Recipe(model="tests.trainables.training.test_stages:linear", stages=HEAD_FIRST)
    with pytest.raises(SpecError, match="must have forward_features, forward_head and get_"):
        start(recipe, rungs=(27,))


def built(recipe: Recipe, *, classes: int = CLASSES) -> Any:
    return build_model(recipe, classes=classes, image_size=SIZE, train_images=IMAGES.images, seed=1)


def test_weights_of_a_trial_begin_another_training(tmp_path: Path) -> None:
    """All but the head's, and with them the normalization that they were trained with."""
    path = tmp_path / "weights.safetensors"
    source = build_model(
        Recipe(width=3), classes=7, image_size=SIZE, train_images=IMAGES.images[:9], seed=0
    )
    save_weights(source, path)
    found = built(Recipe(width=3, pretrained=str(path))).state_dict()
    fresh = built(Recipe(width=3)).state_dict()
    for name, value in source.state_dict().items():
        expected = fresh[name] if name.startswith("net.head.") else value
        assert torch.equal(found[name], expected), name
    assert not torch.equal(found["mean"], fresh["mean"])


def test_weights_in_timms_names_begin_a_training(tmp_path: Path) -> None:
    """As a hub has them: no counters of batches, and another number of classes."""
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
    with pytest.raises(SpecError, match=r"lacks 'blocks.0.convs.2.weight' of the network"):
        built(wider.with_values(width=3, depth=3))
    save_weights(built(Recipe(width=4, attention="se")), path)
    with pytest.raises(SpecError, match=r"has 'blocks\.0\.attention\..*, which the network lacks"):
        built(wider)
    with pytest.raises(SpecError, match=r"none\.safetensors cannot be read: No such file"):
        built(wider.with_values(pretrained=str(tmp_path / "none.safetensors")))
    for content, message in (
        (b"\x80\x04pickle", "is a pickle, .*save_file"),
        (b"PK\x03\x04archive", "is a pickle, "),
        (b"version https://git-lfs", "is not a whole safetensors file: .*; fetch it again"),
    ):
        path.write_bytes(content)
        with pytest.raises(SpecError, match=message):
            built(wider)
    with pytest.raises(SpecError, match=r"is a folder; name the \.safetensors file"):
        built(wider.with_values(pretrained=str(tmp_path)))
    poisoned = built(Recipe(width=3))
    torch.nn.init.constant_(poisoned.net.blocks[0].convs[0].weight, float("nan"))
    save_weights(poisoned, path)
    with pytest.raises(SpecError, match=r"has 'net.blocks.0.convs.0.weight' with values that are"):
        built(Recipe(width=3, pretrained=str(path)))


def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, pretrained: bool, **__: object) -> None:
        assert pretrained
        raise ConnectionError("no route")

    monkeypatch.setattr("timm.create_model", unreachable)
    with pytest.raises(SpecError, match=r"'resnet50' cannot be downloaded \(ConnectionError\)"):
        built(Recipe(model="timm:resnet50", pretrained="hub"))
    with pytest.raises(SpecError, match="pretrained: hub needs a model of timm, got 'conv"):
        built(Recipe(pretrained="hub"))


def test_the_bias_of_the_whitening_learns_in_the_first_epochs_only() -> None:
    training = start(Recipe(width=4, batch_size=16, whitening_epochs=1, epochs=3), rungs=(3,))
    bias = dict(training._model.named_parameters())["net.whitening.bias"]
    seen = [bias.detach().clone()]
    seen += [bias.detach().clone() for _ in training.reports()]
    assert [not torch.equal(a, b) for a, b in pairwise(seen)] == [True, False, False]
