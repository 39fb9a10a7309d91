"""YAML is read strictly: repeated keys are refused."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common.yaml_text import read_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_text_without_repeated_keys_is_read_as_by_pyyaml(value: Any, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow)
    assert read_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "key", "first", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", 1, 3),
        ("x:\n  width: 1\n  deep: {}\n  width: 1\n", "width", 2, 4),
        ("x: {b: 1, c: 2,\n b: 3}", "b", 1, 2),
        ("- {a: 1}\n- a: 2\n  'a': 3\n", "a", 2, 3),
        ("1: x\n0x1: y\n", "1", 1, 2),
        ("base: &b {c: 1, c: 2}\nx: *b\n", "c", 1, 1),
    ],
)
def test_a_repeated_key_is_named_with_its_lines(text: str, key: str, first: int, line: int) -> None:
    with pytest.raises(yaml.MarkedYAMLError) as caught:
        read_yaml(text)
    assert caught.value.problem_mark is not None
    assert caught.value.problem_mark.line + 1 == line
    for part in (repr(key).strip("'"), f"line {first}"):
        assert part in str(caught.value.problem)


def test_keys_may_recur_in_other_mappings_and_override_merged_ones() -> None:
    assert read_yaml("a: {a: 1}\nb: {a: {a: 2}}") == {"a": {"a": 1}, "b": {"a": {"a": 2}}}
    merged = "base: &b {x: 1, y: 2}\nmine:\n  <<: *b\n  y: 3\n"
    assert read_yaml(merged)["mine"] == {"x": 1, "y": 3}
    nested = "b: &b {x: 1}\na: {deep: &m {<<: *b, x: 2}}\nother: {<<: *m}\n"
    assert read_yaml(nested) == yaml.safe_load(nested)


@pytest.mark.parametrize("text", ["2024-13-45", "{[1]: 2}", "a: [", "[" * 5000])
def test_impossible_values_are_yaml_errors(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        read_yaml(text)
