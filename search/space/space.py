"""The search space: which recipe values are searched, over what, and under which condition.

In a sweep's YAML, `space` maps a recipe field to one of

    {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
    {type: int, low: 16, high: 48, step: 16}
    {type: categorical, choices: [sgd, adamw]}

each with an optional `when: {optimizer: sgd}` or `when: {optimizer: [sgd, adamw]}`. A
condition names an earlier parameter or a fixed recipe value; a parameter whose condition
fails is not searched in that trial and keeps the sweep's own value. A condition on a
parameter that is itself not searched in a trial fails.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from common.errors import SpecError
from common.parsing import check_key, from_mapping
from trainables.recipe import Recipe, value_types

Scalar = float | int | str | bool


class Suggester(Protocol):
    """Draws values: the part of `optuna.Trial` that a space needs."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number in [low, high]."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A whole number in [low, high]."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One searched recipe value: its domain and its condition."""

    name: str
    type: Literal["float", "int", "categorical"]
    low: float = 0.0
    high: float = 0.0
    """Both ends belong to the domain."""
    step: float | None = None
    """Distance of neighbouring values; it divides high - low."""
    log: bool = False
    """Uniform in the logarithm."""
    choices: tuple[Scalar, ...] = ()
    when: tuple[tuple[str, tuple[Scalar, ...]], ...] = ()
    """Searched only if each named value is among those given."""

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
            choice: Scalar = suggester.suggest_categorical(self.name, self.choices)
            return choice
        if self.type == "int":
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return suggester.suggest_int(self.name, low, high, step=step, log=self.log)
        return suggester.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def contains(self, value: object) -> bool:
        """Whether `value` belongs to the domain."""
        if self.type == "categorical":
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        kinds = int if self.type == "int" else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (
            self.step is None or _whole((value - self.low) / self.step)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """All searched values, each after those that its condition names."""

    parameters: tuple[Parameter, ...]

    @classmethod
    def from_mapping(
        cls, mapping: Mapping[str, Any], *, base: Recipe, where: str = "space"
    ) -> "Space":
        """Read a space; `base` holds the fixed recipe values.

        Raises:
            SpecError: an unknown key, an empty or reversed range, a value that no recipe
                can have, or a condition that names a later or unknown parameter.
        """
        parameters: dict[str, Parameter] = {}
        for name, entry in mapping.items():
            check_key(name, Recipe.KEYS, where=where)
            place = f"{where}: {name}"
            read = _read(name, from_mapping(_Entry, entry, where=place), base, place)
            parameter = _resolve(read, parameters, list(mapping), base, f"{place}: when")
            if parameter is not None:
                parameters[name] = parameter
        return cls(parameters=tuple(parameters.values()))

    def suggest(self, suggester: Suggester) -> dict[str, Scalar]:
        """Draw a value for every parameter whose condition holds."""
        values: dict[str, Scalar] = {}
        for parameter in self.parameters:
            if _active(parameter, values):
                values[parameter.name] = parameter.suggest(suggester)
        return values

    def contains(self, values: Mapping[str, Any]) -> bool:
        """Whether `suggest` could have drawn exactly these values."""
        chosen: dict[str, Scalar] = {}
        for parameter in self.parameters:
            if _active(parameter, chosen):
                if not parameter.contains(values.get(parameter.name)):
                    return False
                chosen[parameter.name] = values[parameter.name]
        return set(chosen) == set(values)

    def active(self, values: Mapping[str, Any]) -> dict[str, Scalar]:
        """Those of `values` (a whole recipe's, say) that are searched under its conditions."""
        chosen: dict[str, Scalar] = {}
        for parameter in self.parameters:
            if parameter.name in values and _active(parameter, chosen):
                chosen[parameter.name] = values[parameter.name]
        return chosen

    def ends(self) -> Iterator[dict[str, Scalar]]:
        """Draws, in part: each parameter at each end of its range, and with each choice.

        They hold that parameter, and the first values under which it is searched.
        """
        known = {parameter.name: parameter for parameter in self.parameters}

        def holding(parameter: Parameter) -> dict[str, Scalar]:
            found: dict[str, Scalar] = {}
            for other, wanted in parameter.when:
                found |= {**holding(known[other]), other: wanted[0]}
            return found

        for parameter in self.parameters:
            for value in parameter.ends:
                yield {**holding(parameter), parameter.name: value}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A parameter as it stands in the YAML."""

    type: Literal["float", "int", "categorical"]
    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None
    when: dict[str, Any] | None = None


def _read(name: str, entry: _Entry, base: Recipe, where: str) -> Parameter:
    when = tuple(
        (other, tuple(wanted) if isinstance(wanted, list | tuple) else (wanted,))
        for other, wanted in (entry.when or {}).items()
    )
    if entry.type == "categorical":
        if entry.choices is None or (entry.low, entry.high, entry.step) != (None, None, None):
            raise SpecError(f"{where}: a categorical parameter has `choices` and no range")
        if not entry.choices:
            raise SpecError(f"{where}: choices must name at least one value, got []")
        choices = tuple(_as_recipe_value(base, name, choice, where) for choice in entry.choices)
        if len(set(choices)) < len(choices):
            raise SpecError(f"{where}: choices must differ, got {list(choices)}")
        return Parameter(name=name, type=entry.type, choices=choices, when=when)
    low, high = _check_range(name, entry, where)
    for value in (low, high):
        _as_recipe_value(base, name, value, where)
    return Parameter(
        name=name, type=entry.type, low=low, high=high, step=entry.step, log=entry.log, when=when
    )


def _check_range(name: str, entry: _Entry, where: str) -> tuple[float, float]:
    if entry.low is None or entry.high is None or entry.choices is not None:
        raise SpecError(f"{where}: a parameter of type {entry.type} has `low` and `high`")
    numbers = [value for value in (entry.low, entry.high, entry.step) if value is not None]
    if entry.type == "int" and not all(isinstance(value, int) for value in numbers):
        raise SpecError(f"{where}: an int parameter has whole numbers, got {numbers}")
    if entry.type == "float" and value_types()[name] is not float:
        raise SpecError(f"{where}: {name} takes no fractions; use type: int or categorical")
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
    """`value` as a recipe would hold it; refused if no recipe could."""
    recipe = Recipe.from_mapping({**base.to_mapping(), name: value}, where=where)
    held: Scalar = recipe.values()[name]
    return held


def _resolve(
    parameter: Parameter,
    earlier: Mapping[str, Parameter],
    names: Sequence[str],
    base: Recipe,
    where: str,
) -> Parameter | None:
    """The parameter with only those conditions that a draw decides; None if one never holds."""
    possible = True
    conditions = []
    for other, wanted in parameter.when:
        check_key(other, Recipe.KEYS, where=where)
        if other in names and names.index(other) >= names.index(parameter.name):
            raise SpecError(f"{where} names {other!r}, which must stand before {parameter.name!r}")
        values = tuple(_as_recipe_value(base, other, value, where) for value in wanted)
        if other in earlier:
            _check_drawn(earlier[other], values, where)
            conditions.append((other, values))
        else:
            # A fixed value, or a parameter that is never searched.
            possible &= other not in names and base.values()[other] in values
    return replace(parameter, when=tuple(conditions)) if possible else None


def _check_drawn(other: Parameter, values: Sequence[Scalar], where: str) -> None:
    for value in values:
        if not other.contains(value):
            domain = list(other.choices) or f"{other.low:g} to {other.high:g}"
            raise SpecError(f"{where} wants {other.name} = {value!r}, which has only {domain}")


def _active(parameter: Parameter, values: Mapping[str, Any]) -> bool:
    return all(other in values and values[other] in wanted for other, wanted in parameter.when)


def _whole(ratio: float) -> bool:
    return math.isclose(ratio, round(ratio), rel_tol=0.0, abs_tol=1e-6)
