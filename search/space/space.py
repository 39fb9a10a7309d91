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

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from common.errors import SpecError
from common.parsing import check_key, from_mapping
from trainables.hyperparameters import LENGTHS
from trainables.recipe import Recipe, value_types

Scalar = float | int | str | bool

FAMILY = "family"
"""The recipe key that names a trial's family; the first parameter of a space with several."""


class Suggester(Protocol):
    """Draws values: the part of `optuna.Trial` that a space needs."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Return a number in [low, high]."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """Return a whole number in [low, high]."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A searched recipe value: its domain and its condition."""

    name: str
    """Recipe key."""
    type: Literal["float", "int", "categorical"]
    low: float = 0.0
    """Lowest value; both limits belong to the domain."""
    high: float = 0.0
    """Highest value."""
    step: float | None = None
    """Distance between neighbouring values, a divisor of high - low; None for every value."""
    log: bool = False
    """Draw uniformly in the logarithm."""
    choices: tuple[Scalar, ...] = ()
    """Values of a categorical parameter."""
    when: tuple[tuple[str, tuple[Scalar, ...]], ...] = ()
    """Condition: every named recipe value must be among the values given with it."""
    family: str = ""
    """The family that it belongs to; empty if families share it."""
    start: Scalar | None = None
    """Value in the first trial; None to draw it there too."""

    @property
    def label(self) -> str:
        """Its name among all parameters: families may search the same recipe key."""
        return f"{self.family}.{self.name}" if self.family else self.name

    @property
    def ends(self) -> tuple[Scalar, ...]:
        """All choices, or the lowest and the highest value."""
        if self.type == "categorical":
            return self.choices
        kind = int if self.type == "int" else float
        return (kind(self.low), kind(self.high))

    def suggest(self, suggester: Suggester) -> Scalar:
        """Draw a value."""
        if self.type == "categorical":
            choice: Scalar = suggester.suggest_categorical(self.label, self.choices)
            return choice
        if self.type == "int":
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return suggester.suggest_int(self.label, low, high, step=step, log=self.log)
        return suggester.suggest_float(
            self.label, self.low, self.high, step=self.step, log=self.log
        )

    def contains(self, value: object) -> bool:
        """Return whether `value` belongs to the domain."""
        if self.type == "categorical":
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        kinds = int if self.type == "int" else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (
            self.step is None or _whole((value - self.low) / self.step)
        )


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
        parameters = _parameters(mapping, base, where)
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
            if value is not None and _condition_holds(parameter, values):
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
            if _condition_holds(parameter, values):
                values[parameter.name] = parameter.suggest(suggester)
        return values

    def contains(self, values: Mapping[str, Any]) -> bool:
        """Return whether `suggest` could have drawn exactly these values."""
        chosen: dict[str, Scalar] = {}
        for parameter in self.parameters:
            if _condition_holds(parameter, chosen):
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
            if parameter.name in values and _condition_holds(parameter, chosen):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A parameter as the YAML holds it."""

    type: Literal["float", "int", "categorical"]
    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None
    when: dict[str, Any] | None = None
    start: Any = None


def _parameters(
    mapping: Mapping[str, Any], base: Recipe, where: str, *, family: str = ""
) -> tuple[Parameter, ...]:
    """Read the parameters whose conditions can hold."""
    parameters: dict[str, Parameter] = {}
    for name, entry in mapping.items():
        check_key(name, Recipe.KEYS, where=where)
        place = f"{where}: {name}"
        if name == FAMILY:
            raise SpecError(f"{place}: it is searched by itself where `families` has several")
        given = _parameter_of(name, from_mapping(_Entry, entry, where=place), base, place)
        parameter = _resolve(given, parameters, list(mapping), base, f"{place}: when")
        if parameter is not None:
            parameters[name] = replace(parameter, family=family)
    return tuple(parameters.values())


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
    for parameter in _parameters(family.space, family.recipe, where, family=name):
        yield parameter if alone else replace(parameter, when=((FAMILY, (name,)), *parameter.when))


def _parameter_of(name: str, entry: _Entry, base: Recipe, where: str) -> Parameter:
    when = tuple(
        (other, tuple(allowed) if isinstance(allowed, list | tuple) else (allowed,))
        for other, allowed in (entry.when or {}).items()
    )
    parameter = _domain_of(name, entry, base, when, where)
    if entry.start is None:
        return parameter
    start = _as_recipe_value(base, name, entry.start, where)
    if not parameter.contains(start):
        raise SpecError(f"{where}: start must belong to the domain, got {entry.start!r}")
    return replace(parameter, start=start)


def _domain_of(
    name: str,
    entry: _Entry,
    base: Recipe,
    when: tuple[tuple[str, tuple[Any, ...]], ...],
    where: str,
) -> Parameter:
    if entry.type == "categorical":
        if entry.choices is None or (entry.low, entry.high, entry.step) != (None, None, None):
            raise SpecError(f"{where}: a categorical parameter has `choices` and no range")
        if not entry.choices:
            raise SpecError(f"{where}: choices must name at least one value, got []")
        choices = tuple(_as_recipe_value(base, name, choice, where) for choice in entry.choices)
        if len(set(choices)) < len(choices):
            raise SpecError(f"{where}: choices must differ, got {list(choices)}")
        return Parameter(name=name, type=entry.type, choices=choices, when=when)
    low, high = _range_of(name, entry, where)
    for value in (low, high):
        _as_recipe_value(base, name, value, where)
    return Parameter(
        name=name, type=entry.type, low=low, high=high, step=entry.step, log=entry.log, when=when
    )


def _range_of(name: str, entry: _Entry, where: str) -> tuple[float, float]:
    if entry.low is None or entry.high is None or entry.choices is not None:
        raise SpecError(f"{where}: a parameter of type {entry.type} has `low` and `high`")
    numbers = [value for value in (entry.low, entry.high, entry.step) if value is not None]
    if entry.type == "int" and not all(isinstance(value, int) for value in numbers):
        raise SpecError(f"{where}: an int parameter has whole numbers, got {numbers}")
    if entry.type == "float" and value_types()[name] not in (float, int | float):
        raise SpecError(f"{where}: {name} takes no fractions; use type: int or categorical")
    if entry.type == "float" and name in LENGTHS and entry.high >= 1:
        raise SpecError(
            f"{where}: a float range of {name} holds shares of the image's side, so high must be "
            f"below 1, got {entry.high}; use type: int for pixels"
        )
    if not (math.isfinite(entry.low) and math.isfinite(entry.high) and entry.low < entry.high):
        raise SpecError(f"{where}: low must be below high, got {entry.low} and {entry.high}")
    if entry.log and entry.low <= 0:
        raise SpecError(f"{where}: a log range needs low above 0, got {entry.low}")
    if entry.log and entry.step is not None:
        raise SpecError(f"{where}: a log range has no step, got {entry.step}")
    if entry.step is not None and not (
        entry.step > 0 and _whole((entry.high - entry.low) / entry.step)
    ):
        span = f"high - low = {entry.high - entry.low:g}"
        raise SpecError(f"{where}: step must be above 0 and divide {span}, got {entry.step}")
    return (entry.low, entry.high) if entry.type == "int" else (float(entry.low), float(entry.high))


def _as_recipe_value(base: Recipe, name: str, value: object, where: str) -> Scalar:
    """Convert `value` to the type that a recipe holds; refuse what no recipe can hold."""
    recipe = Recipe.from_mapping({**base.to_mapping(), name: value}, where=where)
    converted: Scalar = recipe.values()[name]
    return converted


def _resolve(
    parameter: Parameter,
    earlier: Mapping[str, Parameter],
    names: Sequence[str],
    base: Recipe,
    where: str,
) -> Parameter | None:
    """Keep only the conditions that depend on drawn values; None if another one fails."""
    possible = True
    conditions = []
    for other, allowed in parameter.when:
        check_key(other, Recipe.KEYS, where=where)
        if other in names and names.index(other) >= names.index(parameter.name):
            raise SpecError(f"{where} names {other!r}, which must come before {parameter.name!r}")
        values = tuple(_as_recipe_value(base, other, value, where) for value in allowed)
        if other in earlier:
            _require_possible(earlier[other], values, where)
            conditions.append((other, values))
        else:
            # A fixed value, or a parameter that is never searched.
            possible &= other not in names and base.values()[other] in values
    return replace(parameter, when=tuple(conditions)) if possible else None


def _require_possible(parameter: Parameter, values: Sequence[Scalar], where: str) -> None:
    for value in values:
        if not parameter.contains(value):
            domain = list(parameter.choices) or f"{parameter.low:g} to {parameter.high:g}"
            raise SpecError(
                f"{where} requires {parameter.name} = {value!r}, but its values are {domain}"
            )


def _condition_holds(parameter: Parameter, values: Mapping[str, Any]) -> bool:
    return all(name in values and values[name] in allowed for name, allowed in parameter.when)


def _whole(ratio: float) -> bool:
    return math.isclose(ratio, round(ratio), rel_tol=0.0, abs_tol=1e-6)
