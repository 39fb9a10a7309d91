"""Parquet files in the Hugging Face layout: `train*.parquet`, `test*.parquet`."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainables.errors import DataError
from trainables.imageset import Contents, Source
from trainables.pixels import NamedImage, decode_batches, short_sides

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label")
GROUP_COLUMN = "group"
BATCH = 1024


def parquet_source(root: Path) -> Source:
    """Find the files in `root` or in `root/data`; nothing is decoded yet.

    The first of the columns `img`, `image` has the images: encoded bytes, or a struct of
    `bytes` and `path`. The first of `label`, `labels`, `fine_label` has the classes:
    whole numbers, or texts. Names of classes are those of the schema's `huggingface`
    metadata, else the values themselves, in order. A column `group`, if there is one,
    says which images must not be divided among the splits. Without `image_size`, all
    images get the commonest shorter side as theirs.

    Raises:
        DataError: no training file, or (when read) a broken file, a missing column,
            labels that are empty or out of range, or an image that cannot be decoded.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; give the folder of the Parquet files")
    folders = [folder for folder in (root, root / "data") if any(folder.glob("train*.parquet"))]
    if not folders:
        raise DataError(f"no train*.parquet in {root} or in its folder data")
    train, test = (sorted(folders[0].glob(f"{part}*.parquet")) for part in ("train", "test"))
    return Source(
        kind="parquet",
        name=root.resolve().name,
        root=root,
        files=(*train, *test),
        read=lambda image_size: _read(root, train, test, image_size),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """What the columns are called, and the classes if the schema names them."""

    image: str
    label: str
    group: str | None
    class_names: tuple[str, ...] | None


def _read(
    root: Path, train: Sequence[Path], test: Sequence[Path], image_size: int | None
) -> Contents:
    files = (*train, *test)
    with _clear_errors(root):
        columns = _columns(files[0])
        labels = _values(files, columns.label)
        groups = _groups(files, columns.group)
        test_rows = sum(pq.read_metadata(path).num_rows for path in test)
    class_names, indices = _classes(labels, columns, root)
    size = image_size or _commonest_side(root, files, columns.image)
    return Contents(
        image_size=size,
        labels=indices,
        class_names=class_names,
        is_test=np.arange(len(labels)) >= len(labels) - test_rows if test_rows else None,
        groups=groups,
        batches=decode_batches(_batches(root, files, columns.image), size),
    )


@contextmanager
def _clear_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"the Parquet files in {root} cannot be read: {error}") from None


def _columns(path: Path) -> _Columns:
    schema = pq.read_schema(path)
    image, label = _first(schema, IMAGE_COLUMNS, path), _first(schema, LABEL_COLUMNS, path)
    kind = schema.field(image).type
    encoded = kind.field("bytes").type if _has_bytes(kind) else kind
    if not (pa.types.is_binary(encoded) or pa.types.is_large_binary(encoded)):
        raise DataError(f"{path}: the column {image!r} must hold encoded images, it holds {kind}")
    return _Columns(
        image=image,
        label=label,
        group=GROUP_COLUMN if GROUP_COLUMN in schema.names else None,
        class_names=_named_classes(schema, label),
    )


def _has_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def _first(schema: pa.Schema, names: Sequence[str], path: Path) -> str:
    for name in names:
        if name in schema.names:
            return name
    raise DataError(
        f"{path} has none of the columns {', '.join(names)}; it has {', '.join(schema.names)}"
    )


def _named_classes(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """The `names` of the label's ClassLabel feature in the `huggingface` metadata."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        names = about["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(str(name) for name in names) if isinstance(names, list) else None


def _values(files: Sequence[Path], column: str) -> list[Any]:
    # Not read_table, which takes folders like `label=3` on the way for columns.
    tables = (pq.ParquetFile(path).read(columns=[column]) for path in files)
    return [value for table in tables for value in table.column(0).to_pylist()]


def _groups(files: Sequence[Path], column: str | None) -> tuple[str, ...] | None:
    if column is None:
        return None
    return tuple("" if group is None else str(group) for group in _values(files, column))


def _classes(
    values: list[Any], columns: _Columns, root: Path
) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names, and each value's index among them as int64 [N]."""
    distinct = set(values)
    if not distinct:
        raise DataError(f"the Parquet files in {root} have no rows")
    kinds = {type(value) for value in distinct}
    if kinds not in ({int}, {str}):
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DataError(
            f"{root}: {columns.label} must be a whole number or a text in every row, got {found}"
        )
    if kinds == {str} or columns.class_names is None:
        ordered = sorted(distinct)
        if kinds == {int} and ordered[0] < 0:
            raise DataError(_out_of_range(root, columns.label, ordered[0]))
        index = {value: i for i, value in enumerate(ordered)}
        return tuple(map(str, ordered)), np.array([index[value] for value in values], np.int64)
    for value in (min(distinct), max(distinct)):
        if not 0 <= value < len(columns.class_names):
            raise DataError(_out_of_range(root, columns.label, value))
    return columns.class_names, np.array(values, np.int64)


def _out_of_range(root: Path, label: str, value: int) -> str:
    return (
        f"{root}: the {label} {value} is no class; if the test files are unlabelled, move them away"
    )


def _batches(root: Path, files: Sequence[Path], column: str) -> Iterator[list[NamedImage]]:
    for path in files:
        row = 0
        name = path.relative_to(root)
        with _clear_errors(root), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH, columns=[column]):
                images = batch.column(0)
                if pa.types.is_struct(images.type):
                    images = images.field("bytes")
                encoded = images.to_pylist()
                yield [(f"{name} row {row + i}", data or b"") for i, data in enumerate(encoded)]
                row += len(encoded)


def _commonest_side(root: Path, files: Sequence[Path], column: str) -> int:
    counts = Counter(side for batch in _batches(root, files, column) for side in short_sides(batch))
    del counts[0]
    if not counts:
        raise DataError(f"none of the images in {root} can be read")
    return max(counts, key=lambda side: (counts[side], -side))
