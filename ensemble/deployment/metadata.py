"""Describe an exported classifier inside its own ONNX file.

The description is stored in the file's `metadata_props`, a map of strings that every ONNX runtime
can read, so the file can be used without card.json beside it. Lists and objects are JSON.
`model_license` is ONNX's own key. Nothing here needs the package `onnx`, which loads slowly.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import SpecError
from common.parsing import from_mapping, to_mapping
from trainables.data.grey_levels import DEFAULT_LEVELS, GreyLevels
from trainables.data.resizing import ResizeRule, describe_resizing

SCHEMA = "1"
NO_LICENSE = "NOASSERTION"
"""SPDX's term for a licence that was not stated."""

_JSON = ("class_names", "image_size", "grey_levels", "conformal")
"""Fields that are stored as JSON; the others are plain strings."""
_NAMES = {"license": "model_license"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformalThreshold:
    """A split-conformal rule: the set of all classes that are probable enough."""

    coverage: float
    """Target: the share of new images whose set should hold the true class, in [0, 1]."""
    min_probability: float
    """Smallest probability of a class in the set."""

    def __post_init__(self) -> None:
        """Refuse values that are not shares."""
        for name in ("coverage", "min_probability"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise SpecError(f"{name} must lie in [0, 1], got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetadata:
    """All that a caller must know to use a classifier, and its origin."""

    class_names: tuple[str, ...]
    """In the order of the model's outputs."""
    image_size: int
    """Side of the square input in pixels."""
    resize_rule: ResizeRule = "crop"
    """The rule of trainables/data/resizing.py that makes images square."""
    grey_levels: GreyLevels = DEFAULT_LEVELS
    """Ranges that map grey images of more than 8 bits to 0 … 255."""
    license: str = NO_LICENSE
    """The model's licence, as an SPDX expression."""
    dataset: str = ""
    """Name of the training data."""
    dataset_fingerprint: str = ""
    split_id: str = ""
    recipe_sha256: str = ""
    """SHA-256 of the recipe's JSON; see `recipe_digest` in card.py."""
    code_version: str = ""
    conformal: ConformalThreshold | None = None

    def to_props(self) -> dict[str, str]:
        """Return the strings that are stored in the file."""
        values = to_mapping(self)
        props = {"quorum_schema": SCHEMA}
        for name, value in values.items():
            if name == "conformal" and value is None:
                continue
            text = json.dumps(value, ensure_ascii=False) if name in _JSON else value
            props[_NAMES.get(name, name)] = text
        props["resize"] = describe_resizing(self.resize_rule, self.image_size)
        return props


def metadata_from_props(props: Mapping[str, str], *, where: str) -> ModelMetadata | None:
    """Return the description in a file's `metadata_props`; None if Quorum wrote none.

    Keys that a later version may have added are ignored.

    Raises:
        SpecError: the description is damaged, or has another schema.
    """
    schema = props.get("quorum_schema")
    if schema is None:
        return None
    if schema != SCHEMA:
        raise SpecError(f"{where}: metadata of schema {schema!r}, this version reads {SCHEMA!r}")
    values: dict[str, Any] = {}
    for name in ModelMetadata.__dataclass_fields__:
        text = props.get(_NAMES.get(name, name))
        if text is None:
            continue
        try:
            values[name] = json.loads(text) if name in _JSON else text
        except ValueError:
            raise SpecError(f"{where}: metadata {name}: {text[:80]!r} is not JSON") from None
    return from_mapping(ModelMetadata, values, where=f"{where}: metadata")
