"""Convert plain mappings (from YAML or JSON) to frozen dataclasses, strictly.

An unknown key is an error that names the nearest known key; a value of the wrong type is an
error that shows the value. Defaults are those of the dataclass fields.
"""

import dataclasses
import difflib
import math
import os
import re
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self, TypeVar, get_args, get_origin

from common.errors import SpecError

T = TypeVar("T")


class CustomMapping(ABC):
    """A dataclass that converts itself to and from plain values, at any depth."""

    __slots__ = ()

    @classmethod
    @abstractmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, where: str) -> Self:
        """Build the object from plain values."""

    @abstractmethod
    def to_mapping(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""


def from_mapping(cls: type[T], mapping: object, *, where: str) -> T:
    """Build the dataclass `cls`, and dataclasses nested in it, from a mapping.

    `where` starts error messages, e.g. "sweep digits.yaml: splits".

    Raises:
        SpecError: `mapping` is not a mapping, has an unknown key, lacks a required key, or
            has a value of the wrong type.
    """
    if not isinstance(mapping, Mapping):
        raise SpecError(f"{where}: expected a mapping of keys to values, got {mapping!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in mapping:
        check_key(key, fields, where=where)
    missing = [
        name
        for name, field in fields.items()
        if name not in mapping
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise SpecError(f"{where}: the key {missing[0]!r} is required")
    values = {
        key: convert(value, hints[key], where=f"{where}: {key}") for key, value in mapping.items()
    }
    try:
        return cls(**values)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None


def to_mapping(value: object) -> Any:
    """Return plain dicts, lists and scalars for JSON; the inverse of `from_mapping`."""
    if isinstance(value, CustomMapping):
        return value.to_mapping()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_mapping(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): to_mapping(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_mapping(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def check_key(key: object, known: Iterable[str], *, where: str) -> None:
    """Raise SpecError for a key that is not in `known`, naming the nearest known key."""
    names = sorted(known)
    if key in names:
        return
    near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names)}"
    raise SpecError(f"{where}: unknown key {key!r}; {hint}")


def parse_duration(text: str | float | None) -> float | None:
    """Return the seconds of a duration like `45s`, `90m`, `2h` or `1h30m`.

    A number is in seconds already; None stays None.

    Raises:
        SpecError: `text` is not a duration, or not longer than 0 s.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        if not 0 < text < math.inf:
            raise SpecError(f"a duration must be more than 0 s, got {text!r}")
        return float(text)
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip())
    try:
        parts = [float(part or 0) for part in match.groups()] if match and text.strip() else []
    except ValueError:
        parts = []
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not seconds > 0:
        raise SpecError(f"{text!r} is not a duration; write it like 45s, 90m, 2h or 1h30m")
    return seconds


def parse_size(text: str | float) -> float:
    """Return the gigabytes (10⁹ bytes) of a size like `500MB`, `50GB` or `2TB`, or of a number.

    Raises:
        SpecError: `text` is not a size, or not more than 0.
    """
    match = re.fullmatch(r"([\d.]+)\s*([MGT]?)B?", str(text).strip(), re.IGNORECASE)
    try:
        size = float(match[1]) if match else 0.0
    except ValueError:
        size = 0.0
    if match is None or not 0 < size < math.inf:
        raise SpecError(f"{text!r} is not a size; write it like 500MB, 50GB or 2TB")
    return size * {"M": 1e-3, "": 1.0, "G": 1.0, "T": 1e3}[match[2].upper()]


def convert(value: object, hint: Any, *, where: str) -> Any:
    """Return `value` as the type `hint`, or raise a SpecError that shows it."""
    origin = get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(value, get_args(hint), where=where)
    if origin is Literal:
        return _convert_literal(value, get_args(hint), where=where)
    if origin is tuple:
        return _convert_tuple(value, get_args(hint), where=where)
    if origin in (dict, Mapping) or hint is dict:
        return _convert_dict(value, get_args(hint), where=where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if issubclass(hint, CustomMapping):
            return hint.from_mapping(typing.cast(Any, value), where=where)
        return from_mapping(hint, value, where=where)
    return _convert_scalar(value, hint, where=where)


def _convert_dict(value: object, items: tuple[Any, ...], *, where: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{where}: expected a mapping, got {value!r}")
    if not items:
        return dict(value)
    return {
        convert(key, items[0], where=f"{where}: key"): convert(
            item, items[1], where=f"{where}: {key}"
        )
        for key, item in value.items()
    }


def _convert_union(value: object, options: tuple[Any, ...], *, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    errors = []
    for option in options:
        if option is type(None):
            continue
        try:
            return convert(value, option, where=where)
        except SpecError as error:
            errors.append(error)
    raise errors[0]


def _convert_literal(value: object, options: tuple[Any, ...], *, where: str) -> Any:
    # YAML reads a bare null as None where its author meant `none`.
    if value is None and "none" in options:
        return "none"
    if value in options and type(value) in {type(option) for option in options}:
        return value
    near = difflib.get_close_matches(str(value), [str(option) for option in options], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise SpecError(f"{where}: {value!r} is not a choice; {hint}choices: {list(options)}")


def _convert_tuple(value: object, items: tuple[Any, ...], *, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise SpecError(f"{where}: expected a list, got {value!r}")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(convert(item, items[0], where=f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(items):
        raise SpecError(f"{where}: expected {len(items)} values, got {value!r}")
    return tuple(
        convert(item, hint, where=f"{where}[{i}]")
        for i, (item, hint) in enumerate(zip(value, items, strict=True))
    )


def _convert_scalar(value: object, hint: Any, *, where: str) -> Any:
    if hint is Any or hint is object:
        return value
    # PyYAML reads 1e-3 (no dot) as a string where its author meant the number.
    if hint is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
        raise SpecError(f"{where}: expected a number, got {value!r}")
    if hint is int and isinstance(value, bool):
        raise SpecError(f"{where}: expected a whole number, got {value!r}")
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    descriptions = {
        "int": "a whole number",
        "float": "a number",
        "str": "text",
        "bool": "true or false",
    }
    name = getattr(hint, "__name__", str(hint))
    raise SpecError(f"{where}: expected {descriptions.get(name, name)}, got {value!r}")
