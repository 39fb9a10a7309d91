"""A factor is removed from every stage of a recipe, and nothing else with it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.ablation.factors import (
    FACTORS,
    LAST,
    distinct_factors,
    factors_of,
    same_training,
    without,
)
from search.space.sweep_files import load_spec
from tests.docs import ROOT
from trainables.recipe import Recipe
from trainables.stages import Stage

AUGMENTATION: dict[str, Any] = {
    "augment": st.sampled_from(["none", "standard", "randaugment"]),
    "flip": st.booleans(),
    "alternating_flip": st.booleans(),
    "translate": st.integers(0, 3),
    "cutout": st.integers(0, 2),
    "mixup_alpha": st.sampled_from([0.0, 0.4]),
    "mix_probability": st.sampled_from([0.0, 0.5]),
    "label_smoothing": st.sampled_from([0.0, 0.1]),
    "warmup_epochs": st.sampled_from([0.0, 1.0]),
}
values = st.fixed_dictionaries({}, optional=AUGMENTATION)
decays = st.sampled_from([None, 0.7, 1.0])
stages = st.lists(st.tuples(decays, values), max_size=3).map(
    lambda parts: tuple(
        Stage(epochs=2 if number < len(parts) else None, layer_decay=decay, values=part)
        for number, (decay, part) in enumerate(parts, start=1)
    )
)
recipes = st.builds(
    lambda own, others, parts: Recipe(**own, **others, stages=parts),
    values,
    st.fixed_dictionaries(
        {
            "model": st.sampled_from(["convnet", "timm:resnet18"]),
            "depth": st.integers(1, 3),
            "attention": st.sampled_from(["none", "se"]),
            "pretrained": st.sampled_from(["", "some.safetensors"]),
            "tta": st.sampled_from(["none", "mirror"]),
            "layer_decay": st.sampled_from([0.8, 1.0]),
        }
    ),
    stages,
)


def stage_without(recipe: Recipe, name: str, index: int) -> Recipe:
    """Return the recipe of one stage without a factor, computed from that stage alone."""
    inner, factor = recipe.in_stage(index), FACTORS[name]
    return inner.with_values(**factor.off) if factor.on(inner) else inner


@given(recipes, st.sampled_from([name for name in FACTORS if "stages" not in FACTORS[name].off]))
def test_a_factor_is_removed_from_every_stage_and_nothing_else_changes(
    recipe: Recipe, name: str
) -> None:
    reduced = without(recipe, [name])
    assert [replace(stage, values={}, layer_decay=None) for stage in reduced.schedule.stages] == [
        replace(stage, values={}, layer_decay=None) for stage in recipe.schedule.stages
    ]
    for index in range(max(1, len(recipe.schedule.stages))):
        assert reduced.in_stage(index) == stage_without(recipe, name, index)


@settings(max_examples=15)
@given(recipes)
def test_a_removed_factor_is_no_longer_a_factor(recipe: Recipe) -> None:
    for name in factors_of(recipe):
        variant = without(recipe, [name])
        assert same_training(variant, without(variant, [name]))
    bare = without(recipe, factors_of(recipe))
    # Pretrained weights keep the parts of the net that they were trained with.
    kept = (
        {"whitening", "dirac-init", "attention", "residual"}
        if recipe.architecture.pretrained
        else set()
    )
    assert set(factors_of(bare)) <= kept
    assert Recipe.from_mapping(bare.to_mapping()) == bare


@pytest.mark.parametrize(
    ("recipe", "absent"),
    [
        (Recipe(augment="none"), {"augmentation", "flip", "translate", "alternating-flip"}),
        (Recipe(flip=False, alternating_flip=True), {"flip", "alternating-flip"}),
        (Recipe(mixup_alpha=0.4, mix_probability=0.0), {"mixup"}),
        (Recipe(model="timm:resnet18", attention="se"), {"whitening", "dirac-init", "attention"}),
        (Recipe(pretrained="own.safetensors", depth=3), {"whitening", "dirac-init", "residual"}),
        (Recipe(depth=1), {"residual"}),
        (Recipe(stages=(Stage(train="head"),)), {"pretraining", "stages"}),
        (Recipe(augment="none", stages=(Stage(),)), {"policy", "augmentation"}),
    ],
)
def test_a_value_without_effect_is_not_a_factor(recipe: Recipe, absent: set[str]) -> None:
    assert absent.isdisjoint(factors_of(recipe))


def test_factors_of_a_recipe_with_two_stages() -> None:
    head = Stage(epochs=2, train="head", values={"augment": "randaugment", "mixup_alpha": 0.4})
    rest = Stage(lr_scale=0.1, layer_decay=0.7, values={"cutout": 4})
    recipe = Recipe(pretrained="own.safetensors", stages=(head, rest))
    assert {"policy", "mixup", "cutout", "pretraining", "stages"} <= set(factors_of(recipe))
    assert without(recipe, ["policy"]).schedule.stages == (
        replace(head, values={"mixup_alpha": 0.4}),
        rest,
    )
    bare = without(recipe, ["augmentation"])
    assert [bare.in_stage(index).augmentation.policy for index in (0, 1)] == ["none", "none"]
    assert without(recipe, ["stages"]).schedule.stages == (rest,)
    scratch = without(recipe, ["pretraining"])
    assert (scratch.architecture.pretrained, scratch.schedule.stages) == ("", ())
    assert (scratch.augmentation.cutout, scratch.optimizer.layer_decay) == (4, 1.0)
    assert FACTORS["stages"].off == {"stages": LAST}


def test_the_documentation_describes_every_factor() -> None:
    text = (ROOT / "docs" / "ablation.md").read_text()
    assert [name for name in FACTORS if f"`{name}`" not in text] == []


def test_of_two_factors_with_the_same_removal_the_more_specific_is_kept() -> None:
    """Digits are only translated, so removing that removes all augmentation."""
    digits, cifar10 = (load_spec(name).base_recipe() for name in ("digits", "cifar10"))
    assert {"augmentation", "translate"} <= set(factors_of(digits))
    assert "augmentation" not in distinct_factors(digits, factors_of(digits))
    assert distinct_factors(cifar10, factors_of(cifar10)) == factors_of(cifar10)
