"""Mappings become dataclasses strictly, and errors name the key, the value and the fix."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SpecError
from common.parsing import check_key, from_mapping, parse_duration, parse_size, to_mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise SpecError(f"low must not be above high, got {self.low} > {self.high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    name: str
    count: int = 3
    rate: float = 0.5
    loud: bool = False
    kind: Literal["none", "some", "all"] = "none"
    limit: int | None = None
    rungs: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (1, 2.0)
    inner: Inner = field(default_factory=Inner)
    many: tuple[Inner, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


def parse(**values: Any) -> Outer:
    return from_mapping(Outer, {"name": "x", **values}, where="test")


outers = st.builds(
    Outer,
    name=st.text(),
    count=st.integers(),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    loud=st.booleans(),
    kind=st.sampled_from(["none", "some", "all"]),
    limit=st.none() | st.integers(),
    rungs=st.lists(st.integers(), max_size=4).map(tuple),
    inner=st.builds(Inner, low=st.floats(-5, 0), high=st.floats(0, 5)),
    many=st.lists(st.builds(Inner), max_size=2).map(tuple),
    extra=st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=3),
    figures=st.dictionaries(st.text(), st.floats(-9, 9), max_size=3),
)


@given(outers)
def test_values_round_trip_through_json_and_yaml(value: Outer) -> None:
    mapping = to_mapping(value)
    assert from_mapping(Outer, mapping, where="test") == value
    assert from_mapping(Outer, json.loads(json.dumps(mapping)), where="test") == value
    if all(text.isprintable() for text in (value.name, *value.extra, *value.figures)):
        text = yaml.safe_dump(mapping, allow_unicode=True)
        assert from_mapping(Outer, yaml.safe_load(text), where="test") == value


def test_defaults_are_those_of_the_fields() -> None:
    assert parse() == Outer(name="x")
    assert parse(inner={"high": 3}).inner == Inner(low=0.0, high=3.0)
    assert parse(inner=Inner(high=2.0)).inner == Inner(high=2.0)


@pytest.mark.parametrize(
    ("key", "value", "parsed"),
    [
        ("rate", 2, 2.0),
        ("rate", "1e-3", 0.001),
        ("kind", None, "none"),
        ("rungs", [3, 9], (3, 9)),
        ("pair", [1, 2], (1, 2.0)),
        ("many", [{}, {"high": 2}], (Inner(), Inner(high=2.0))),
        ("figures", {"nll": 1}, {"nll": 1.0}),
    ],
)
def test_near_miss_values_are_converted(key: str, value: object, parsed: object) -> None:
    converted = getattr(parse(**{key: value}), key)
    assert converted == parsed
    assert type(converted) is type(parsed)


def test_yaml_numbers_without_a_dot_are_numbers() -> None:
    assert from_mapping(Outer, yaml.safe_load("{name: x, rate: 1e-3}"), where="t").rate == 0.001


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cuont": 3}, "^test: unknown key 'cuont'; did you mean 'count'"),
        ({"zzz": 3}, "^test: unknown key 'zzz'; known keys: count, extra"),
        ({3: 3}, "^test: unknown key 3; known keys"),
        ({"inner": {"hihg": 3}}, "^test: inner: unknown key 'hihg'; did you mean 'high'"),
        ({"many": [{}, {"lwo": 0}]}, r"^test: many\[1\]: unknown key 'lwo'; did you mean 'low'"),
        ({"inner": {"low": 3}}, r"^test: inner: low must not be above high, got 3.0 > 1.0"),
        ({"inner": 3}, "^test: inner: expected a mapping of keys to values, got 3"),
        ({"count": 3.0}, "^test: count: expected a whole number, got 3.0"),
        ({"count": True}, "^test: count: expected a whole number, got True"),
        ({"count": "3"}, "^test: count: expected a whole number, got '3'"),
        ({"count": None}, "^test: count: expected a whole number, got None"),
        ({"rate": True}, "^test: rate: expected a number, got True"),
        ({"rate": "fast"}, "^test: rate: expected a number, got 'fast'"),
        ({"rate": float("nan")}, "^test: rate: expected a number, got nan"),
        ({"rate": "inf"}, "^test: rate: expected a number, got 'inf'"),
        ({"rate": 10**400}, "^test: rate: expected a number, got 1000"),
        ({"loud": 1}, "^test: loud: expected true or false, got 1"),
        ({"name": 3}, "^test: name: expected text, got 3"),
        ({"limit": "3"}, "^test: limit: expected a whole number, got '3'"),
        ({"kind": "soem"}, r"^test: kind: 'soem' is not a choice; did you mean 'some'\? choices"),
        ({"kind": False}, "^test: kind: False is not a choice; choices"),
        ({"kind": ["all"]}, r"^test: kind: \['all'\] is not a choice"),
        ({"rungs": 3}, "^test: rungs: expected a list, got 3"),
        ({"rungs": "39"}, "^test: rungs: expected a list, got '39'"),
        ({"rungs": [3, "9"]}, r"^test: rungs\[1\]: expected a whole number, got '9'"),
        ({"pair": [1]}, r"^test: pair: expected 2 values, got \[1\]"),
        ({"extra": [1]}, r"^test: extra: expected a mapping, got \[1\]"),
        ({"figures": {"nll": "low"}}, "^test: figures: nll: expected a number, got 'low'"),
        ({"figures": {3: 1.0}}, "^test: figures: key: expected text, got 3"),
    ],
)
def test_impossible_values_are_refused(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        from_mapping(Outer, {"name": "x", **values}, where="test")


def test_a_required_key_is_named() -> None:
    with pytest.raises(SpecError, match="here: the key 'name' is required"):
        from_mapping(Outer, {}, where="here")


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_values_other_than_mappings_are_refused(value: object) -> None:
    with pytest.raises(SpecError, match="here: expected a mapping of keys to values"):
        from_mapping(Outer, value, where="here")


def test_a_parsed_mapping_is_a_copy() -> None:
    extra = {"a": 1}
    outer = parse(extra=extra)
    extra["a"] = 2
    assert outer.extra == {"a": 1}


def test_only_known_keys_pass() -> None:
    check_key("low", ["high", "low"], where="test")
    with pytest.raises(SpecError, match="test: unknown key 'lo'; did you mean 'low'"):
        check_key("lo", ["high", "low"], where="test")


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("0.5h", 1800)]
)
def test_a_duration_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "2d", "0s", "1.2.3h", "1m2h"])
def test_a_malformed_duration_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="is not a duration"):
        parse_duration(text)


def test_no_duration_is_none() -> None:
    assert parse_duration(None) is None


@pytest.mark.parametrize(
    ("text", "gigabytes"),
    [("500MB", 0.5), ("50GB", 50), ("50 gb", 50), ("2TB", 2000), ("1.5T", 1500), ("7", 7), (7, 7)],
)
def test_sizes_are_in_gigabytes(text: str | float, gigabytes: float) -> None:
    assert parse_size(text) == gigabytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "50kB", "1.2.3GB", "inf", 0])
def test_what_is_not_a_size_is_refused(text: str | float) -> None:
    with pytest.raises(SpecError, match="is not a size; write it like 500MB, 50GB or 2TB"):
        parse_size(text)
