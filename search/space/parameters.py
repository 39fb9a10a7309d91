"""The searched recipe values: their domains, conditions and recommended first values.

search/space/space.py shows how a sweep's YAML declares them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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


def condition_holds(parameter: Parameter, values: Mapping[str, Any]) -> bool:
    """Return whether the drawn `values` satisfy the parameter's condition."""
    return all(name in values and values[name] in allowed for name, allowed in parameter.when)


def read_parameters(
    mapping: Mapping[str, Any], base: Recipe, where: str, *, family: str = ""
) -> tuple[Parameter, ...]:
    """Read the parameters whose conditions can hold."""
    parameters: dict[str, Parameter] = {}
    for name, entry in mapping.items():
        check_key(name, Recipe.KEYS, where=where)
        place = f"{where}: {name}"
        if name == FAMILY:
            raise SpecError(
                f"{place}: remove it; with several `families`, the family is always searched"
            )
        given = _parameter_of(name, from_mapping(_Entry, entry, where=place), base, place)
        parameter = _resolve(given, parameters, list(mapping), base, f"{place}: when")
        if parameter is not None:
            parameters[name] = replace(parameter, family=family)
    return tuple(parameters.values())


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


def _whole(ratio: float) -> bool:
    return math.isclose(ratio, round(ratio), rel_tol=0.0, abs_tol=1e-6)
