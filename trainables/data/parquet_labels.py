"""The labels of Parquet files: their types, and the classes that they stand for.

Axes: N rows.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import DataError
from trainables.data.class_names import clean_class_name
from trainables.data.notes import printable


def label_kind(path: Path, label: str) -> str:
    """Return `integer`, `string`, `boolean` or `null`, the type of a file's labels.

    Raises:
        DataError: they have another type, e.g. lists, as for several classes per image.
    """
    kind = pq.read_schema(path).field(label).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_null(value):
        return "null"
    if pa.types.is_integer(value):
        return "integer"
    if pa.types.is_boolean(value):
        return "boolean"
    if pa.types.is_string(value) or pa.types.is_large_string(value):
        return "string"
    if pa.types.is_nested(kind):
        raise DataError(
            f"{path}: {label} holds {kind}, i.e. several values per image; each image must have "
            "one class, an integer or a string"
        )
    raise DataError(f"{path}: {label} must be an integer or a string, got {kind}")


def classes_of(
    values: list[Any], named: Sequence[str] | None, *, label: str, root: Path
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the class names, and each value's index among them as int64 [N].

    `named` are the names in the schema: then values are indices, names, or indices written as
    strings. `label` is the column's name.

    Raises:
        DataError: there are no values, or one is not a class.
    """
    if not values:
        raise DataError(no_rows(root))
    if isinstance(values[0], bool) and named is not None:
        values = [int(value) for value in values]
    if isinstance(values[0], str | bool):
        values = [clean_class_name(str(value)) for value in values]
    if named is not None and not isinstance(values[0], int):
        values = _numbered(values, named, label=label, root=root)
    distinct = Counter(values)
    if isinstance(values[0], str) or named is None:
        ordered = sorted(distinct)
        if isinstance(values[0], int) and ordered[0] < 0:
            raise DataError(_out_of_range(root, label, ordered[0]))
        index = {value: i for i, value in enumerate(ordered)}
        return tuple(map(str, ordered)), np.array([index[value] for value in values], np.int64)
    for value in (min(distinct), max(distinct)):
        if not 0 <= value < len(named):
            raise DataError(_out_of_range(root, label, value))
    return tuple(named), np.array(values, np.int64)


def _numbered(values: list[str], named: Sequence[str], *, label: str, root: Path) -> list[int]:
    """Return the indices of labels that are names, or indices written as strings."""
    index = {name: i for i, name in enumerate(named)}
    distinct = sorted(set(values))
    if not any(value in index for value in distinct) and all(map(str.isdecimal, distinct)):
        return [int(value) for value in values]
    unknown = [value for value in distinct if value not in index]
    if unknown:
        raise DataError(_out_of_range(root, label, printable(unknown[0])))
    return [index[value] for value in values]


def _out_of_range(root: Path, label: str, value: int | str) -> str:
    return f"{root}: {label} {value} is not a class; correct or remove these rows"


def no_rows(root: Path) -> str:
    """Return the message for files without rows."""
    return f"the Parquet files in {root} have no rows; fetch them again"
