"""The recipe's round trip and its ranges."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SpecError
from trainables import recipe as module
from trainables.recipe import Numerics, Recipe

RANGES = module._RANGES


def strategies() -> dict[str, st.SearchStrategy[Any]]:
    found: dict[str, st.SearchStrategy[Any]] = {}
    for field in dataclasses.fields(Recipe):
        low, high = RANGES.get(field.name, (0, 0))
        if field.type is float:
            found[field.name] = st.floats(low, high)
        elif field.type is int:
            found[field.name] = st.integers(int(low), int(high))
        elif field.type is bool:
            found[field.name] = st.booleans()
    return found


@given(st.fixed_dictionaries(strategies()))
def test_there_and_back_through_json(values: dict[str, Any]) -> None:
    recipe = Recipe(**values)
    assert Recipe.from_mapping(recipe.to_mapping()) == recipe
    assert Recipe.from_mapping(json.loads(json.dumps(recipe.to_mapping()))) == recipe


def test_the_defaults_are_within_their_ranges_and_every_number_has_one() -> None:
    assert Recipe() == Recipe.from_mapping({})
    numbers = {f.name for f in dataclasses.fields(Recipe) if f.type in (int, float)}
    assert numbers == set(RANGES)


@pytest.mark.parametrize("name", sorted(RANGES))
def test_ends_are_allowed_and_what_lies_beyond_is_named(name: str) -> None:
    low, high = RANGES[name]
    kind = type(getattr(Recipe(), name))
    assert getattr(Recipe().with_values(**{name: kind(low)}), name) == low
    assert getattr(Recipe().with_values(**{name: kind(high)}), name) == high
    for value in (low - 1, high + 1, float("nan")):
        with pytest.raises(SpecError, match=f"^{name} must lie in .*got"):
            Recipe().with_values(**{name: value})


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"widht": 3}, "^here: unknown key 'widht'; did you mean 'width'"),
        ({"width": 0}, r"^here: width must lie in \[1, 4096\], got 0"),
        ({"optimizer": "adam"}, "^here: optimizer: 'adam' is not a choice; did you mean 'adamw'"),
        (
            {"model": "resnet50"},
            "^here: model must be 'convnet', 'wrn-DEPTH-K', 'timm:NAME' or .* got 'resnet50'",
        ),
        (
            {"model": "timm:"},
            "^here: model must be 'convnet', 'wrn-DEPTH-K', 'timm:NAME' or .* got 'timm:'",
        ),
        ({"model": "my net:build"}, "^here: model must be .* got 'my net:build'"),
        ({"augment": "randaug"}, "^here: augment: .* did you mean 'randaugment'"),
        ({"epochs": 2.5}, "^here: epochs: expected a whole number, got 2.5"),
    ],
)
def test_what_cannot_be_is_refused(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Recipe.from_mapping(mapping, where="here")


def test_a_copy_with_other_values_is_checked_too() -> None:
    assert Recipe().with_values(width=64, attention="se").width == 64
    assert Recipe.from_mapping({"attention": None}).attention == "none"
    with pytest.raises(SpecError, match="dropout must lie in"):
        Recipe().with_values(dropout=1.0)


def test_a_timm_model_by_name() -> None:
    assert Recipe(model="timm:resnet50").model == "timm:resnet50"


def test_recipes_and_numerics_are_values() -> None:
    assert Recipe() == Recipe()
    assert hash(Recipe()) == hash(Recipe())
    assert Numerics() != Numerics(threads=2)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        Recipe().width = 3  # type: ignore[misc]
