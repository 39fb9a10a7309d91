"""Stages of a recipe: their order and the values that they may hold."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SpecError
from trainables.recipe import Recipe
from trainables.stages import Stage, stage_at, stage_starts


@given(lengths=st.lists(st.integers(1, 5), max_size=4), epoch=st.integers(1, 30))
def test_stages_follow_each_other(lengths: list[int], epoch: int) -> None:
    stages = (*(Stage(epochs=length) for length in lengths), Stage())
    owners = [index for index, length in enumerate(lengths) for _ in range(length)]
    expected = owners[epoch - 1] if epoch <= len(owners) else len(lengths)
    assert stage_at(stages, epoch) == expected
    assert stage_starts(stages)[expected] < epoch
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
        ([{"layer_decay": 1.5}], r"layer_decay must lie in \[1e-06, 1\], got 1.5"),
    ],
)
def test_impossible_stages_are_refused(stages: list[Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Recipe.from_mapping({"stages": stages})


def test_a_stage_without_a_layer_decay_has_the_recipes() -> None:
    recipe = Recipe(layer_decay=0.9, stages=(Stage(epochs=1), Stage(layer_decay=0.7)))
    assert [recipe.in_stage(index).optimizer.layer_decay for index in (0, 1)] == [0.9, 0.7]
    assert recipe.with_values(stages=()).in_stage(0).optimizer.layer_decay == 0.9
