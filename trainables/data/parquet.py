"""Read Parquet files in the Hugging Face layout: `train*.parquet`, `test*.parquet`."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import DataError
from trainables.data.class_names import clean_class_name
from trainables.data.decoding import Contents, Source, evenly
from trainables.data.pixels import NamedImage, decode_batches, short_sides

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label")
GROUP_COLUMN = "group"
POOL = ("train", "val")
"""Prefixes of the files that are divided among train, val and holdout."""
SHARD = re.compile(r"(?P<split>.+)-(?P<part>\d+)-of-(?P<parts>\d+)\b")
"""File names of the parts of a split on Hugging Face; a hash may follow."""
BATCH = 1024
SAMPLED_GROUPS, SAMPLED_ROWS = 16, 64
"""Number of row groups, and of rows at the start of each, that are read for the images' sizes."""


def parquet_source(root: Path) -> Source:
    """Find the files in `root` or in `root/data`; nothing is decoded yet.

    The image column is `img`, else `image`; it holds encoded bytes, or a struct of `bytes` and
    `path`. The class column is `label`, else `labels`, else `fine_label`; it holds integers or
    strings. Class names come from the schema's `huggingface` metadata, else from the sorted
    values. Images with the same value in the optional column `group` stay in one split.

    `train*` and `val*` (`valid`, `validation`) form one pool, which `make_splits` divides.
    `test*` is the data set's own test split; without it, a fifth of the pool becomes test.

    Raises:
        DataError: there is no training file, a part of a split is missing, or (when read) a
            file is broken, a column is missing, or labels are empty or out of range.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; give the folder of the Parquet files")
    folder = _folder(root)
    if folder is None:
        raise DataError(
            f"no train*.parquet in {root} or in its folder data; give the folder that has them"
        )
    pool = [path for part in POOL for path in sorted(folder.glob(f"{part}*.parquet"))]
    test = sorted(folder.glob("test*.parquet"))
    _check_shards((*pool, *test))
    return Source(
        kind="parquet",
        name=root.resolve().name,
        root=root,
        files=(*pool, *test),
        short_sides=lambda: _sampled_sides(root, (*pool, *test)),
        read=lambda image_size: _read(root, pool, test, image_size),
    )


def holds_parquet(root: Path) -> bool:
    """Return whether `parquet_source` would find a training file in `root` or `root/data`."""
    return _folder(root) is not None


def _folder(root: Path) -> Path | None:
    folders = (folder for folder in (root, root / "data") if any(folder.glob("train*.parquet")))
    return next(folders, None)


def _check_shards(files: Sequence[Path]) -> None:
    """Refuse a split with a missing part; names are like train-00001-of-00003.parquet."""
    present: dict[tuple[str, int], set[int]] = {}
    for path in files:
        match = SHARD.match(path.name)
        if match is not None:
            present.setdefault((match["split"], int(match["parts"])), set()).add(int(match["part"]))
    for (split, parts), numbers in present.items():
        missing = sorted(set(range(parts)) - numbers)
        if missing:
            raise DataError(
                f"{files[0].parent} has {len(numbers)} of {parts} parts of {split}; fetch "
                f"{split}-{missing[0]:05d}-of-{parts:05d}.parquet"
                f"{', …' if len(missing) > 1 else ''}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Names of the columns, and of the classes if the schema has them."""

    image: str
    label: str
    group: str | None
    class_names: tuple[str, ...] | None


def _read(root: Path, pool: Sequence[Path], test: Sequence[Path], image_size: int) -> Contents:
    files = (*pool, *test)
    with _clear_errors(root):
        columns = _columns(files[0])
        labels = _values(files, columns.label)
        groups = _groups(files, columns.group)
        test_rows = sum(pq.read_metadata(path).num_rows for path in test)
    class_names, indices = _classes(labels, columns, root)
    return Contents(
        labels=indices,
        class_names=class_names,
        is_test=np.arange(len(labels)) >= len(labels) - test_rows if test_rows else None,
        groups=groups,
        batches=decode_batches(_batches(root, files, columns.image), image_size),
    )


@contextmanager
def _clear_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"the Parquet files in {root} cannot be read: {error}; fetch them again"
        ) from None


def _columns(path: Path) -> _Columns:
    schema = pq.read_schema(path)
    image, label = _first(schema, IMAGE_COLUMNS, path), _first(schema, LABEL_COLUMNS, path)
    kind = schema.field(image).type
    encoded = kind.field("bytes").type if _has_bytes(kind) else kind
    if not (pa.types.is_binary(encoded) or pa.types.is_large_binary(encoded)):
        raise DataError(f"{path}: the column {image!r} must hold encoded images, got {kind}")
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
    """Return the names in the label's ClassLabel feature of the `huggingface` metadata."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        names = about["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(clean_class_name(str(name)) for name in names) if isinstance(names, list) else None


def _values(files: Sequence[Path], column: str) -> list[Any]:
    # Not read_table, which would turn folders like `label=3` in the path into columns.
    tables = (pq.ParquetFile(path).read(columns=[column]) for path in files)
    return [value for table in tables for value in table.column(0).to_pylist()]


def _groups(files: Sequence[Path], column: str | None) -> tuple[str, ...] | None:
    if column is None:
        return None
    return tuple("" if group is None else str(group) for group in _values(files, column))


def _classes(
    values: list[Any], columns: _Columns, root: Path
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the class names, and each value's index among them as int64 [N]."""
    distinct = set(values)
    if not distinct:
        raise DataError(_no_rows(root))
    kinds = {type(value) for value in distinct}
    if kinds not in ({int}, {str}):
        got = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DataError(
            f"{root}: {columns.label} must be an integer or a string in every row, got {got}"
        )
    if kinds == {str}:
        values = [clean_class_name(value) for value in values]
        distinct = set(values)
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
    return f"{root}: {label} {value} is not a class; if the test files are unlabelled, remove them"


def _batches(root: Path, files: Sequence[Path], column: str) -> Iterator[list[NamedImage]]:
    for path in files:
        row = 0
        name = path.relative_to(root)
        with _clear_errors(root), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH, columns=[column]):
                encoded = _encoded(batch)
                yield [(f"{name} row {row + i}", data) for i, data in enumerate(encoded)]
                row += len(encoded)


def _encoded(batch: pa.RecordBatch) -> list[bytes]:
    """Return the encoded images of a one-column batch; nulls are empty."""
    images = batch.column(0)
    if pa.types.is_struct(images.type):
        images = images.field("bytes")
    return [data or b"" for data in images.to_pylist()]


def _sampled_sides(root: Path, files: Sequence[Path]) -> list[int]:
    """Return the shorter sides in the first rows of evenly spaced row groups."""
    sides: list[int] = []
    with _clear_errors(root):
        column = _columns(files[0]).image
        groups = [(path, i) for path in files for i in range(pq.read_metadata(path).num_row_groups)]
        for path, group in evenly(groups, SAMPLED_GROUPS):
            with pq.ParquetFile(path) as file:
                batches = file.iter_batches(
                    batch_size=SAMPLED_ROWS, row_groups=[group], columns=[column]
                )
                for batch in itertools.islice(batches, 1):
                    sides += short_sides(("", data) for data in _encoded(batch))
    if not sides:
        raise DataError(_no_rows(root))
    return sides


def _no_rows(root: Path) -> str:
    return f"the Parquet files in {root} have no rows; fetch them again"
