"""Read YAML strictly: a key that is repeated in one mapping is an error."""

from collections.abc import Hashable
from typing import Any

import yaml

MERGE = "tag:yaml.org,2002:merge"
"""Tag of the key `<<`."""


def read_yaml(text: str) -> Any:
    """Return the plain values of a YAML text, as `yaml.safe_load` does.

    PyYAML keeps the last of repeated keys and drops the others. A key that overrides one from
    `<<` is not repeated.

    Raises:
        yaml.YAMLError: the text is not valid YAML, a key is repeated in one mapping, or a value,
            e.g. a date, is impossible. `problem_mark`, where known, is the place.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from None


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses repeated keys."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Check a mapping's keys as it is parsed, before `<<` adds those of others."""
        node = super().compose_mapping_node(anchor)
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == MERGE:
                continue
            key = self.construct_object(key_node)
            if key in lines:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key!r} is repeated (first in line {lines[key]}); keep one",
                    problem_mark=key_node.start_mark,
                )
            lines[key] = key_node.start_mark.line + 1
        return node
