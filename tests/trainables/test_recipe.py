"""The recipe: sections in code, flat keys outside, and the ranges of its values."""

import dataclasses
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SpecError
from common.parsing import to_mapping
from tests.docs import ROOT
from trainables.hyperparameters import LENGTHS, length_in_pixels
from trainables.recipe import Numerics, Recipe
from trainables.records import read_start

SECTIONS = [getattr(Recipe(), item.name) for item in dataclasses.fields(Recipe)]
FIELDS = {
    item.metadata.get("key") or item.name: item
    for section in SECTIONS
    for item in dataclasses.fields(section)
}
RANGES = {key: item.metadata["range"] for key, item in FIELDS.items() if "range" in item.metadata}
CHOICES = {
    "model": st.sampled_from(["convnet", "wrn-10-1", "timm:resnet18", "mynet:build"]),
    "optimizer": st.sampled_from(["sgd", "adamw", "muon"]),
    "attention": st.sampled_from(["none", "se", "eca", "cbam"]),
    "augment": st.sampled_from(["none", "standard", "colour", "randaugment"]),
    "class_weights": st.sampled_from(["none", "balanced", "sqrt"]),
    "pretrained": st.sampled_from(["", "hub", "w.safetensors"]),
    "superclasses": st.sampled_from([(), (("bird", "cat"), ("ship",))]),
    "tta": st.sampled_from(["none", "mirror"]),
}


def strategies() -> dict[str, st.SearchStrategy[Any]]:
    numbers: dict[str, st.SearchStrategy[Any]] = {
        key: st.integers(low, high) if FIELDS[key].type is int else st.floats(low, high)
        for key, (low, high) in RANGES.items()
    }
    for key in LENGTHS:
        numbers[key] = st.integers(0, 4096) | st.floats(0, 1, exclude_max=True)
    switches = {key: st.booleans() for key, item in FIELDS.items() if item.type is bool}
    return {**numbers, **switches, **CHOICES}


@given(st.fixed_dictionaries({}, optional=strategies()))
def test_flat_values_survive_the_round_trip_through_sections(values: dict[str, Any]) -> None:
    recipe = Recipe(**values)
    mapping = recipe.to_mapping()
    assert {key: recipe.values()[key] for key in values} == values
    assert tuple(mapping) == Recipe.KEYS
    assert Recipe.from_mapping(mapping) == recipe
    assert Recipe.from_mapping(json.loads(json.dumps(mapping))) == recipe
    assert Recipe().with_values(**values) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_every_field_has_one_key_and_every_key_one_field() -> None:
    assert sum(len(dataclasses.fields(section)) for section in SECTIONS) == len(FIELDS)
    assert sorted(FIELDS) == sorted(Recipe.KEYS)
    assert len(set(Recipe.KEYS)) == len(Recipe.KEYS)


def test_a_recipe_inside_an_old_record_keeps_its_values_and_later_keys_have_their_defaults() -> (
    None
):
    path = ROOT / "tests" / "golden" / "start_schema1_every_key.json"
    text = path.read_text()
    read, written = to_mapping(read_start(path)), json.loads(text)
    defaults = Recipe().to_mapping()
    later = {key: defaults[key] for key in defaults if key not in written["recipe"]}
    assert read["recipe"] == {**written["recipe"], **later}
    assert read["numerics"] == {**to_mapping(Numerics()), **written["numerics"]}
    assert {**read, "recipe": {}, "numerics": {}} == {**written, "recipe": {}, "numerics": {}}
    changed = {k for k, v in json.loads(text)["recipe"].items() if v != Recipe().to_mapping()[k]}
    assert len(changed) > 40


def test_sections_hold_the_values_by_topic() -> None:
    recipe = Recipe(
        width=64, optimizer="muon", muon_lr=0.1, epochs=3, label_smoothing=0.2, augment="colour"
    )
    assert recipe.architecture.width == 64
    assert (recipe.optimizer.name, recipe.optimizer.peak_lr) == ("muon", 0.1)
    assert recipe.schedule.epochs == 3
    assert recipe.loss.label_smoothing == 0.2
    assert recipe.augmentation.policy == "colour"


def test_defaults_lie_within_their_ranges_and_every_number_has_a_range() -> None:
    assert Recipe() == Recipe.from_mapping({})
    numbers = {key for key, item in FIELDS.items() if item.type in (int, float, int | float)}
    assert numbers == set(RANGES)


def test_lengths_are_shares_of_the_side_below_1_and_whole_pixels_from_1() -> None:
    assert [length_in_pixels(length, 224) for length in (0, 0.125, 0.5, 1, 28)] == [
        0,
        28,
        112,
        1,
        28,
    ]
    assert length_in_pixels(0.125, 32) == 4
    for key in LENGTHS:
        assert Recipe.from_mapping({key: 8}) == Recipe.from_mapping({key: 8.0})
        assert type(Recipe.from_mapping({key: 2}).to_mapping()[key]) is int
        with pytest.raises(SpecError, match=rf"{key} must be a share .* or whole pixels, got 1\.5"):
            Recipe.from_mapping({key: 1.5})


@pytest.mark.parametrize("key", sorted(RANGES))
def test_the_ends_of_a_range_are_accepted_and_values_outside_are_refused(key: str) -> None:
    low, high = RANGES[key]
    kind = type(Recipe().values()[key])
    assert Recipe().with_values(**{key: kind(low)}).values()[key] == low
    assert Recipe().with_values(**{key: kind(high)}).values()[key] == high
    for value in (low - 1, high + 1, float("nan")):
        with pytest.raises(SpecError, match=f"^{key} must lie in .*got"):
            Recipe().with_values(**{key: value})


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"widht": 3}, "^here: unknown key 'widht'; did you mean 'width'"),
        ({"name": "sgd"}, "^here: unknown key 'name'"),
        ({"width": 0}, r"^here: width must lie in \[1, 4096\], got 0"),
        ({"augment_ops": 9}, r"^here: augment_ops must lie in \[1, 8\], got 9"),
        ({"optimizer": "adam"}, "^here: optimizer must be .* got 'adam'; did you mean 'adamw'"),
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
def test_unknown_keys_and_impossible_values_are_refused(
    mapping: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        Recipe.from_mapping(mapping, where="here")


def test_an_unknown_key_from_python_names_the_nearest_one() -> None:
    with pytest.raises(SpecError, match="'witdh'; did you mean 'width'"):
        Recipe(witdh=3)
    with pytest.raises(SpecError, match="'momentun'; did you mean 'momentum'"):
        Recipe().with_values(momentun=0.9)


def test_a_copy_with_other_values_is_checked_too() -> None:
    assert Recipe().with_values(width=64, attention="se").architecture.width == 64
    assert Recipe.from_mapping({"attention": None}).architecture.attention == "none"
    with pytest.raises(SpecError, match="dropout must lie in"):
        Recipe().with_values(dropout=1.0)


def test_a_timm_model_is_accepted_by_name() -> None:
    assert Recipe(model="timm:resnet50").architecture.model == "timm:resnet50"


def test_recipes_and_numerics_are_immutable_values() -> None:
    assert Recipe() == Recipe()
    assert hash(Recipe()) == hash(Recipe())
    assert Numerics() != Numerics(threads=2)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        Recipe().architecture.width = 3  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        Recipe().architecture = Recipe().architecture  # type: ignore[misc]
