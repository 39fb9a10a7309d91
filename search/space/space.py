"""The search space: the searched recipe values, their domains and their conditions.

In a sweep's YAML, `space` maps a recipe key to one of

    {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
    {type: int, low: 16, high: 48, step: 16}
    {type: categorical, choices: [sgd, adamw]}

each with an optional `when: {optimizer: sgd}` or `when: {optimizer: [sgd, adamw]}`. A
condition names an earlier parameter or a fixed recipe value. A parameter whose condition
fails is not searched in that trial and keeps the sweep's own value. A condition on a
parameter that is not searched in a trial fails. `start: VALUE` is used by the first trial.

A sweep may have families: ways to train that exclude each other, each with fixed values and a
space of its own. Their name is then the first searched value. A shared value that a family fixes
or searches itself is not searched for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from search.space.parameters import (
    FAMILY,
    Parameter,
    Scalar,
    Suggester,
    condition_holds,
    read_parameters,
)
from trainables.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of recipes: its fixed values, and the entries of its own space."""

    recipe: Recipe
    """All fixed values, those that families share included."""
    fixed: frozenset[str]
    """The keys that the family itself fixes."""
    space: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The searched values of a sweep."""

    parameters: tuple[Parameter, ...]
    """Each comes after the parameters that its condition names."""
    base: Recipe = Recipe()  # noqa: RUF009 (frozen)
    """The values that are not searched; without families."""
    families: Mapping[str, Recipe] = field(default_factory=dict)
    """The values that are not searched, by family."""

    @classmethod
    def from_mapping(
        cls,
        mapping: Mapping[str, Any],
        *,
        base: Recipe,
        families: Mapping[str, Family] | None = None,
        where: str = "space",
    ) -> "Space":
        """Read a space from plain values; `base` holds the fixed recipe values.

        Raises:
            SpecError: a key is unknown, a range is empty or reversed, no recipe can have a
                value, or a condition names a later or unknown parameter.
        """
        parameters = read_parameters(mapping, base, where)
        if not families:
            return cls(parameters=parameters, base=base)
        if len(families) > 1:
            choice = Parameter(name=FAMILY, type="categorical", choices=tuple(families))
            parameters = (choice, *_limited(parameters, families))
        own = (
            parameter
            for name, family in families.items()
            for parameter in _own_parameters(name, family, alone=len(families) == 1)
        )
        return cls(
            parameters=(*parameters, *own),
            base=base,
            families={name: family.recipe for name, family in families.items()},
        )

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        """Return the recipe with the searched `values`, as `suggest` draws them."""
        fixed = self.families.get(str(values.get(FAMILY, next(iter(self.families), ""))), self.base)
        return fixed.with_values(**values)

    def first_values(self, family: str = "") -> dict[str, Scalar]:
        """Return the searched values that a family's first trial does not draw, by label."""
        labelled, values = dict[str, Scalar](), dict[str, Scalar]()
        for parameter in self.parameters:
            value = family if parameter.name == FAMILY else parameter.start
            if value is not None and condition_holds(parameter, values):
                values[parameter.name] = labelled[parameter.label] = value
        return labelled

    def first_recipe(self, family: str = "") -> Recipe:
        """Return the recipe of a family's first trial, without the values that it draws."""
        names = {parameter.label: parameter.name for parameter in self.parameters}
        first = self.first_values(family)
        return self.recipe({names[label]: value for label, value in first.items()})

    def suggest(self, suggester: Suggester) -> dict[str, Scalar]:
        """Draw a value for every parameter whose condition holds."""
        values: dict[str, Scalar] = {}
        for parameter in self.parameters:
            if condition_holds(parameter, values):
                values[parameter.name] = parameter.suggest(suggester)
        return values

    def contains(self, values: Mapping[str, Any]) -> bool:
        """Return whether `suggest` could have drawn exactly these values."""
        chosen: dict[str, Scalar] = {}
        for parameter in self.parameters:
            if condition_holds(parameter, chosen):
                if not parameter.contains(values.get(parameter.name)):
                    return False
                chosen[parameter.name] = values[parameter.name]
        return set(chosen) == set(values)

    def active(self, values: Mapping[str, Any]) -> dict[str, Scalar]:
        """Return the values that are searched under their own conditions, by label.

        `values` may be those of a whole recipe.
        """
        chosen: dict[str, Scalar] = {}
        searched: dict[str, Scalar] = {}
        for parameter in self.parameters:
            if parameter.name in values and condition_holds(parameter, chosen):
                chosen[parameter.name] = searched[parameter.label] = values[parameter.name]
        return searched

    def ends(self) -> Iterator[dict[str, Scalar]]:
        """Yield partial draws: each parameter at each end of its range, and with each choice.

        A partial draw holds that parameter and the first values that satisfy its condition.
        """
        by_label = {parameter.label: parameter for parameter in self.parameters}

        def conditions_of(parameter: Parameter) -> dict[str, Scalar]:
            values: dict[str, Scalar] = {}
            for name, allowed in parameter.when:
                other = by_label.get(f"{parameter.family}.{name}") or by_label[name]
                values |= {**conditions_of(other), name: allowed[0]}
            return values

        for parameter in self.parameters:
            for value in parameter.ends:
                yield {**conditions_of(parameter), parameter.name: value}


def _limited(
    parameters: Sequence[Parameter], families: Mapping[str, Family]
) -> Iterator[Parameter]:
    """Yield the shared parameters, each searched in the families that do not set it themselves."""
    for parameter in parameters:
        searching = tuple(
            name
            for name, family in families.items()
            if parameter.name not in family.fixed and parameter.name not in family.space
        )
        if len(searching) == len(families):
            yield parameter
        elif searching:
            yield replace(parameter, when=((FAMILY, searching), *parameter.when))


def _own_parameters(name: str, family: Family, *, alone: bool) -> Iterator[Parameter]:
    where = f"families: {name}: space"
    for parameter in read_parameters(family.space, family.recipe, where, family=name):
        yield parameter if alone else replace(parameter, when=((FAMILY, (name,)), *parameter.when))
