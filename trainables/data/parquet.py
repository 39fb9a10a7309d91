"""Read Parquet files in the Hugging Face layout: `train*.parquet`, `test*.parquet`."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import DataError
from common.formats import plural
from trainables.data.class_names import clean_class_name, name_notes
from trainables.data.decoding import Contents, Source, evenly
from trainables.data.notes import listing
from trainables.data.parquet_files import ParquetFiles, beside, find_parquet
from trainables.data.parquet_labels import classes_of, label_kind, no_rows
from trainables.data.pixels import NamedImage, decode_batches, short_sides
from trainables.data.resizing import Resizing
from trainables.data.split_names import OwnSplit, Splits, example, split_of

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label")
GROUP_COLUMNS = ("group", "group_id", "patient", "patient_id")
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "fold_name")
BATCH = 1024
SAMPLED_GROUPS, SAMPLED_ROWS = 16, 64
"""Number of row groups, and of rows at the start of each, that are read for the images' sizes."""
UNLABELLED = -1
"""Label that data sets on Hugging Face give to unlabelled images."""


def parquet_source(root: Path, *, splits: Splits | None = None) -> Source:
    """Find the files below `root` (see `parquet_files.find_parquet`); nothing is decoded yet.

    The image column is `img`, else `image`; it holds encoded bytes, or a struct of `bytes` and
    `path`. The class column is `label`, else `labels`, else `fine_label`; it holds integers,
    booleans or strings. Class names come from the schema's `huggingface` metadata, else from the
    sorted values. Images with the same value in the optional column `group` (or `patient_id`, see
    GROUP_COLUMNS) stay in one split. If no file has the name of a split, a column of SPLIT_COLUMNS
    may give each row's.

    Raises:
        DataError: there is no training file, a part of a split is missing, a file is broken or
            lacks a column, files disagree on their classes, or (when read) labels are missing or
            out of range.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; give the folder of the Parquet files")
    with _clear_errors(root):
        found = find_parquet(root, splits)
        if found is None:
            raise DataError(
                f"no train*.parquet in {root} or in its folder data; give the folder that has "
                "them, or name them in dataset.splits"
            )
        columns = _columns(root, found)
        names = sorted(
            {name for path, own in columns.items() for name in _strings(path, own.label)}
        )
    return Source(
        kind="parquet",
        name=root.resolve().name,
        root=root,
        files=found.files,
        short_sides=lambda: _sampled_sides(root, columns),
        read=lambda resizing: _read(root, found, columns, resizing),
        annotations=json.dumps(
            [
                [split, own.label, own.group, own.others]
                for split, own in zip(found.splits.values(), columns.values(), strict=True)
            ]
        ),
        notes=(
            *found.notes,
            *beside(root),
            *name_notes(columns[found.files[0]].class_names or ()),
            *name_notes(names),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Names of a file's columns, and of the classes if the schema has them."""

    image: str
    label: str
    group: str | None
    others: tuple[str, ...]
    """Those of SPLIT_COLUMNS."""
    class_names: tuple[str, ...] | None


def _read(
    root: Path, found: ParquetFiles, columns: Mapping[Path, _Columns], resizing: Resizing
) -> Contents:
    with _clear_errors(root):
        values = {path: _values(path, own.label) for path, own in columns.items()}
        groups = [group for path, own in columns.items() for group in _groups(path, own.group)]
    for path, split in found.splits.items():
        _check_labels(path, split, values[path], columns[path], found)
    first = next(iter(columns.values()))
    class_names, labels = classes_of(
        [value for path in columns for value in values[path]],
        first.class_names,
        label=first.label,
        root=root,
    )
    with _clear_errors(root):
        of_row = _splits_of_rows(root, found, columns)
    if of_row is None:
        of_row = np.repeat([*found.splits.values()], [len(values[path]) for path in found.files])
    return Contents(
        labels=labels,
        class_names=class_names,
        is_test=(of_row == "test") if "test" in of_row else None,
        is_val=(of_row == "val") if "val" in of_row else None,
        groups=tuple(groups) if any(own.group for own in columns.values()) else None,
        batches=decode_batches(_batches(root, columns), resizing),
    )


@contextmanager
def _clear_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        # A UnicodeDecodeError is a ValueError: strings need not be valid UTF-8.
        reason = " ".join(str(error).split())
        raise DataError(
            f"the Parquet files in {root} cannot be read: {reason}; fetch them again"
        ) from None


def _columns(root: Path, found: ParquetFiles) -> dict[Path, _Columns]:
    """Return the columns of every file; all must have the same classes.

    Names stand for indices, so files whose ClassLabel lists differ must not be mixed.
    """
    columns = {path: _columns_of(path, split, found) for path, split in found.splits.items()}
    first = found.files[0]
    for path, own in columns.items():
        if own.class_names != columns[first].class_names:
            lists = [
                f"{p.relative_to(root)} has {_names_text(columns[p].class_names)}"
                for p in (first, path)
            ]
            raise DataError(
                f"the files of {root} name their classes differently, so that a label's number "
                f"may mean different classes: {', '.join(lists)}; write them with one ClassLabel"
            )
    kinds = {label_kind(path, own.label): path.relative_to(root) for path, own in columns.items()}
    kinds.pop("null", None)  # a file without labels, or without rows
    if len(kinds) > 1:
        shown = ", ".join(f"{kind}s in {path}" for kind, path in kinds.items())
        raise DataError(f"the labels of {root} have different types: {shown}; write them in one")
    return columns


def _names_text(names: tuple[str, ...] | None) -> str:
    return "no class names" if names is None else f"[{listing(names, 5)}]"


def _columns_of(path: Path, split: OwnSplit, found: ParquetFiles) -> _Columns:
    schema = pq.read_schema(path)
    image = _first(schema, IMAGE_COLUMNS, path)
    label = _first(schema, LABEL_COLUMNS, path, remedy=_without(split, found))
    kind = schema.field(image).type
    encoded = kind.field("bytes").type if _has_bytes(kind) else kind
    if not (pa.types.is_binary(encoded) or pa.types.is_large_binary(encoded)):
        raise DataError(f"{path}: the column {image!r} must hold encoded images, got {kind}")
    return _Columns(
        image=image,
        label=label,
        group=next((name for name in GROUP_COLUMNS if name in schema.names), None),
        others=tuple(name for name in SPLIT_COLUMNS if name in schema.names),
        class_names=_named_classes(schema, label),
    )


def _without(split: OwnSplit, found: ParquetFiles) -> str:
    """Return the remedy for a split without labels, for a message."""
    if split == "train":
        return ""
    others: dict[str, str] = {
        own: found.names[path] for path, own in found.splits.items() if own != split
    }
    return f"; if {split} is unlabelled, leave it out: {example(others)}"


def _has_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind)) and kind.get_field_index("bytes") >= 0


def _first(schema: pa.Schema, names: Sequence[str], path: Path, *, remedy: str = "") -> str:
    for name in names:
        if name in schema.names:
            return name
    raise DataError(
        f"{path} has none of the columns {', '.join(names)}; it has "
        f"{listing(schema.names, 8) or 'none'}{remedy}"
    )


def _named_classes(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """Return the names in the label's ClassLabel feature of the `huggingface` metadata."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        names = about["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(clean_class_name(str(name)) for name in names) if isinstance(names, list) else None


def _values(path: Path, column: str) -> list[Any]:
    # Not read_table, which would turn folders like `label=3` in the path into columns.
    with pq.ParquetFile(path) as file:
        values: list[Any] = file.read(columns=[column]).column(0).to_pylist()
    return values


def _groups(path: Path, column: str | None) -> list[str]:
    if column is None:
        return [""] * pq.read_metadata(path).num_rows
    return ["" if group is None else str(group) for group in _values(path, column)]


def _check_labels(
    path: Path, split: OwnSplit, values: Sequence[Any], columns: _Columns, found: ParquetFiles
) -> None:
    """Refuse rows without a label: null, an empty string, or UNLABELLED."""
    empty = [row for row, value in enumerate(values) if value is None or value in ("", UNLABELLED)]
    if not empty:
        return
    remedy = _without(split, found) if len(empty) == len(values) else ""
    have = "has" if len(empty) == 1 else "have"
    raise DataError(
        f"{path}: {plural(len(empty), 'row')} of {len(values)} {have} no {columns.label} "
        f"(e.g. row {empty[0]} has {values[empty[0]]!r}); label or remove them{remedy}"
    )


def _strings(path: Path, label: str) -> set[str]:
    """Return the distinct labels of a file, if they are strings."""
    if label_kind(path, label) != "string":
        return set()
    return {value for value in _values(path, label) if value}


def _splits_of_rows(
    root: Path, found: ParquetFiles, columns: Mapping[Path, _Columns]
) -> np.ndarray | None:
    """Return each row's split from a column of splits; None if the files' names tell the splits.

    The column must be in every file and hold names of two splits at least.

    Raises:
        DataError: some values name no split, or none names train.
    """
    if any(split_of(name) is not None for name in found.names.values()):
        return None
    for column in SPLIT_COLUMNS:
        if all(column in own.others for own in columns.values()):
            values = [str(value) for path in columns for value in _values(path, column)]
            distinct = sorted(set(values))
            known = {value: split for value in distinct if (split := split_of(value)) is not None}
            if len(set(known.values())) < 2:
                continue
            unknown = [value for value in distinct if value not in known]
            if unknown or "train" not in known.values():
                raise DataError(
                    f"{root}: the column {column} has {listing(unknown or distinct)}; its values "
                    "must be names of splits, with train: rename them, or the column"
                )
            return np.array([known[value] for value in values])
    return None


def _batches(root: Path, columns: Mapping[Path, _Columns]) -> Iterator[list[NamedImage]]:
    for path, own in columns.items():
        row = 0
        name = path.relative_to(root)
        with _clear_errors(root), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH, columns=[own.image]):
                encoded = _encoded(batch)
                yield [(f"{name} row {row + i}", data) for i, data in enumerate(encoded)]
                row += len(encoded)


def _encoded(batch: pa.RecordBatch) -> list[bytes]:
    """Return the encoded images of a one-column batch; nulls are empty."""
    images = batch.column(0)
    if pa.types.is_struct(images.type):
        images = images.field("bytes")
    return [data or b"" for data in images.to_pylist()]


def _sampled_sides(root: Path, columns: Mapping[Path, _Columns]) -> list[int]:
    """Return the shorter sides in the first rows of evenly spaced row groups."""
    sides: list[int] = []
    with _clear_errors(root):
        groups = [
            (path, i) for path in columns for i in range(pq.read_metadata(path).num_row_groups)
        ]
        for path, group in evenly(groups, SAMPLED_GROUPS):
            with pq.ParquetFile(path) as file:
                batches = file.iter_batches(
                    batch_size=SAMPLED_ROWS, row_groups=[group], columns=[columns[path].image]
                )
                for batch in itertools.islice(batches, 1):
                    sides += short_sides(("", data) for data in _encoded(batch))
    if not sides:
        raise DataError(no_rows(root))
    return sides
