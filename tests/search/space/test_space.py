"""The search space draws legal recipes and refuses impossible spaces by name."""

from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SpecError
from search.space.space import Family, Space
from search.space.sweep_files import load_spec, shipped_names
from trainables.recipe import Recipe


class Draws:
    """A suggester that takes its numbers in [0, 1) from a list, and 0 after its end."""

    def __init__(self, numbers: list[float]) -> None:
        self.numbers = list(numbers)
        self.names: list[str] = []

    def unit(self, name: str) -> float:
        self.names.append(name)
        return self.numbers.pop(0) if self.numbers else 0.0

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        u = self.unit(name)
        if log:
            return float(low * (high / low) ** u)
        if step is not None:
            return low + step * int(u * (round((high - low) / step) + 1))
        return low + u * (high - low)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return low + step * int(self.unit(name) * ((high - low) // step + 1))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return choices[int(self.unit(name) * len(choices))]


def space(text: str, **base: Any) -> Space:
    return Space.from_mapping(yaml.safe_load(text), base=Recipe(**base), where="space")


CONDITIONAL = """
optimizer: {type: categorical, choices: [sgd, adamw]}
lr_per_1024: {type: float, low: 0.1, high: 10, log: true, when: {optimizer: sgd}}
momentum: {type: float, low: 0.8, high: 0.9, step: 0.05, when: {optimizer: [sgd]}}
adamw_lr: {type: float, low: 1e-4, high: 1e-2, log: true, when: {optimizer: adamw}}
depth: {type: int, low: 2, high: 6, step: 2}
"""
units = st.lists(st.floats(0, 1, exclude_max=True), max_size=20)


@given(numbers=units)
def test_every_draw_is_a_recipe_and_belongs_to_the_space(numbers: list[float]) -> None:
    searched = space(CONDITIONAL)
    values = searched.suggest(Draws(numbers))
    recipe = Recipe().with_values(**values)
    assert searched.contains(values)
    assert searched.active(recipe.to_mapping()) == values
    other = {"sgd": "adamw", "adamw": "sgd"}[str(values["optimizer"])]
    assert not searched.contains({**values, "optimizer": other})


@pytest.mark.parametrize("name", shipped_names())
@given(numbers=units)
def test_every_draw_of_a_shipped_space_is_a_recipe(name: str, numbers: list[float]) -> None:
    spec = load_spec(name)
    space = spec.search_space()
    values = space.suggest(Draws(numbers))
    family = spec.families.get(str(values.get("family", "")))
    assert set(values) <= {"family", *spec.space, *(family.space if family else ())}
    assert space.recipe(values).schedule.epochs == spec.rungs[-1]


def test_only_parameters_whose_condition_holds_are_drawn() -> None:
    sgd, adamw = Draws([0.0]), Draws([0.9])
    assert space(CONDITIONAL).suggest(sgd)["optimizer"] == "sgd"
    assert sgd.names == ["optimizer", "lr_per_1024", "momentum", "depth"]
    assert space(CONDITIONAL).suggest(adamw) == {"optimizer": "adamw", "adamw_lr": 1e-4, "depth": 2}
    assert adamw.names == ["optimizer", "adamw_lr", "depth"]


def test_a_condition_on_a_parameter_that_is_not_searched_fails() -> None:
    chained = space("""
        optimizer: {type: categorical, choices: [sgd, adamw]}
        mixup_alpha: {type: float, low: 0, high: 1, when: {optimizer: adamw}}
        mix_probability: {type: float, low: 0, high: 1, when: {mixup_alpha: [0.0]}}
    """)
    assert set(chained.suggest(Draws([0.0]))) == {"optimizer"}
    assert set(chained.suggest(Draws([0.9, 0.0]))) == {
        "optimizer",
        "mixup_alpha",
        "mix_probability",
    }


def test_conditions_on_fixed_values_are_decided_before_any_draw() -> None:
    text = """
        momentum: {type: float, low: 0.8, high: 0.9, when: {optimizer: sgd}}
        dropout: {type: float, low: 0, high: 0.5, when: {momentum: 0.85}}
    """
    assert [p.name for p in space(text, optimizer="sgd").parameters] == ["momentum", "dropout"]
    # dropout depends on momentum, which is never searched.
    assert space(text, optimizer="adamw").parameters == ()


def test_values_have_the_types_of_the_recipe() -> None:
    searched = space("""
        attention: {type: categorical, choices: [null, se]}
        dropout: {type: categorical, choices: [0, 0.5]}
        momentum: {type: float, low: 0, high: 0.5}
    """)
    attention, dropout, momentum = searched.parameters
    assert attention.choices == ("none", "se")
    assert [type(choice) for choice in dropout.choices] == [float, float]
    assert isinstance(momentum.low, float)


def test_limits_and_choices_come_with_the_values_of_their_conditions() -> None:
    ends = list(space(CONDITIONAL).ends())
    assert ends == [
        {"optimizer": "sgd"}, {"optimizer": "adamw"},
        {"optimizer": "sgd", "lr_per_1024": 0.1}, {"optimizer": "sgd", "lr_per_1024": 10.0},
        {"optimizer": "sgd", "momentum": 0.8}, {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "adamw", "adamw_lr": 1e-4}, {"optimizer": "adamw", "adamw_lr": 1e-2},
        {"depth": 2}, {"depth": 6},
    ]  # fmt: skip
    assert all(type(end.get("depth", 0)) is int for end in ends)


def test_only_values_of_the_domain_belong_to_the_space() -> None:
    searched = space("""
        depth: {type: int, low: 2, high: 6, step: 2}
        momentum: {type: float, low: 0.1, high: 0.7, step: 0.2}
        flip: {type: categorical, choices: [true, false]}
    """)
    good = {"depth": 4, "momentum": 0.1 + 2 * 0.2, "flip": True}
    assert searched.contains(good)
    for key, value in (
        ("depth", 3), ("depth", 8), ("depth", 4.0), ("depth", True), ("momentum", 0.2),
        ("momentum", 0.9), ("momentum", "0.1"), ("flip", 1), ("flip", "true"),
    ):  # fmt: skip
        assert not searched.contains({**good, key: value}), (key, value)
    assert not searched.contains({**good, "width": 32})
    assert not searched.contains({"depth": 4})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("widht: {type: int, low: 1, high: 2}", "unknown key 'widht'; did you mean 'width'"),
        ("width: {type: int, lo: 1, high: 2}", "width: unknown key 'lo'; did you mean 'low'"),
        ("width: {low: 1, high: 2}", "width: the key 'type' is required"),
        ("width: 3", "width: expected a mapping of keys to values, got 3"),
        ("width: {type: integer, low: 1, high: 2}", "did you mean 'int'"),
        ("width: {type: int, low: 1}", "width: a parameter of type int has `low` and `high`"),
        ("width: {type: int, low: 8, high: 8}", "low must be below high, got 8 and 8"),
        ("width: {type: int, low: 9, high: 8}", "low must be below high, got 9 and 8"),
        ("width: {type: int, low: 1, high: 2.5}", "whole numbers, got \\[1, 2.5\\]"),
        ("width: {type: float, low: 1, high: 2}", "width takes no fractions; use type: int"),
        ("cutout: {type: float, low: 0, high: 8}", "shares of the image's side, .* got 8;"),
        ("width: {type: int, low: 0, high: 8}", "width must lie in \\[1, 4096\\], got 0"),
        ("dropout: {type: float, low: 0, high: 1}", "dropout must lie in .* got 1"),
        ("dropout: {type: float, low: .nan, high: 1}", "dropout: low: expected .* got nan"),
        ("dropout: {type: float, low: 0, high: 0.5, log: true}", "log range needs low above 0"),
        ("dropout: {type: float, low: 0, high: 0.5, step: 0.2}", "divide high - low = 0.5"),
        ("dropout: {type: float, low: 0, high: 0.5, step: -0.1}", "step must be above 0"),
        ("width: {type: int, low: 1, high: 8, log: true, step: 1}", "a log range has no step"),
        ("width: {type: int, low: 1, high: 8, choices: [1]}", "has `low` and `high`"),
        ("block: {type: categorical, choices: []}", "choices must name at least one value"),
        ("block: {type: categorical, low: 1, high: 2}", "has `choices` and no range"),
        ("block: {type: categorical, choices: [plane]}", "did you mean 'plain'"),
        ("block: {type: categorical, choices: [plain, plain]}", "choices must differ"),
        ("model: {type: categorical, choices: [resnet50]}", "model must be 'convnet', 'wrn-D"),
        ("width: {type: int, low: 1, high: 8, when: {optimiser: sgd}}", "did you mean 'optimizer'"),
        ("width: {type: int, low: 1, high: 8, when: {optimizer: sdg}}", "did you mean 'sgd'"),
        ("width: {type: int, low: 1, high: 8, when: {width: 2}}", "must come before 'width'"),
        (
            "width: {type: int, low: 1, high: 8, when: {depth: 2}}\n"
            "depth: {type: int, low: 1, high: 3, when: {width: 2}}",
            "names 'depth', which must come before 'width'",
        ),
        (
            "depth: {type: int, low: 1, high: 3}\n"
            "width: {type: int, low: 1, high: 8, when: {depth: 4}}",
            "requires depth = 4, but its values are 1 to 3",
        ),
        (
            "optimizer: {type: categorical, choices: [sgd]}\n"
            "width: {type: int, low: 1, high: 8, when: {optimizer: adamw}}",
            "requires optimizer = 'adamw', but its values are \\['sgd'\\]",
        ),
    ],
)  # fmt: skip
def test_an_impossible_space_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        space(text)
    assert str(caught.value).startswith("space: ")
    assert "\n" not in str(caught.value)


def family_space() -> Space:
    """Two families: `tuned` fixes dropout and searches its own rate; both share momentum."""
    base = Recipe(epochs=9)
    shared = {
        "dropout": {"type": "float", "low": 0.0, "high": 0.5},
        "adamw_lr": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True},
        "momentum": {"type": "float", "low": 0.8, "high": 0.9},
    }
    return Space.from_mapping(
        shared,
        base=base,
        families={
            "tuned": Family(
                recipe=base.with_values(family="tuned", model="timm:resnet10t"),
                fixed=frozenset({"dropout", "model"}),
                space={"adamw_lr": {"type": "float", "low": 1e-5, "high": 1e-3, "start": 1e-4}},
            ),
            "scratch": Family(
                recipe=base.with_values(family="scratch"),
                fixed=frozenset(),
                space={"width": {"type": "int", "low": 16, "high": 32, "start": 24}},
            ),
        },
    )


class TestFamilies:
    def test_each_family_searches_what_it_does_not_set_itself(self) -> None:
        labels = {"tuned": set[str](), "scratch": set[str]()}
        space = family_space()
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        for _ in range(40):
            trial = study.ask()
            recipe = space.recipe(space.suggest(trial))
            family = recipe.architecture.family
            labels[family] |= set(trial.params)
            assert space.active(recipe.to_mapping()) == trial.params
            own = recipe.optimizer.adamw_lr < 1e-3
            assert own == (family == "tuned") == (recipe.architecture.model == "timm:resnet10t")
        assert labels == {
            "tuned": {"family", "momentum", "tuned.adamw_lr"},
            "scratch": {"family", "dropout", "adamw_lr", "momentum", "scratch.width"},
        }

    def test_the_first_recipe_of_a_family_has_its_recommended_values(self) -> None:
        space = family_space()
        assert space.first_values("tuned") == {"family": "tuned", "tuned.adamw_lr": 1e-4}
        assert space.first_recipe("scratch").architecture.width == 24
        assert space.first_recipe("tuned").architecture.model == "timm:resnet10t"

    def test_the_ends_of_all_ranges_are_partial_draws_of_their_family(self) -> None:
        space = family_space()
        for values in space.ends():
            recipe = space.recipe(values)
            assert recipe.architecture.family in ("tuned", "scratch")
        assert {"family": "tuned", "adamw_lr": 1e-5} in list(space.ends())

    def test_a_single_family_is_not_searched_for(self) -> None:
        base = Recipe()
        only = Family(recipe=base.with_values(family="only"), fixed=frozenset(), space={})
        space = Space.from_mapping({}, base=base, families={"only": only})
        assert space.parameters == ()
        assert space.recipe({}).architecture.family == "only"
