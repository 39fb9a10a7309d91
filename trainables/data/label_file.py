"""Read a CSV file of labels for a folder of images: `file,label[,split][,group]`."""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataError
from trainables.data.notes import listing, printable
from trainables.data.split_names import OWN_SPLITS, OwnSplit, Splits, chosen_splits, match_splits

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "file": ("file", "filename", "file_name", "path", "filepath", "file_path", "image",
             "image_path", "image_name", "image_id", "img", "id", "name"),
    "label": ("label", "labels", "class", "class_name", "category", "target", "species", "breed"),
    "split": ("split", "set", "subset", "fold_name"),
    "group": ("group", "group_id", "patient", "patient_id", "subject"),
}  # fmt: skip
"""Names of the columns, in any capitals; the first that is present is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """One image's entry."""

    file: str
    label: str
    split: OwnSplit | None
    """None without a column of splits."""
    group: str | None
    line: int
    """Counted from 1, the header's."""


def read_labels(path: Path, splits: Splits | None) -> tuple[LabelRow, ...]:
    """Read the rows of a CSV file; commas, semicolons or tabs separate the columns.

    Columns are found by name (see COLUMNS); a file of two columns with other names has the file
    first and the label second. `splits` is the option `dataset.splits`, for the values in the
    column of splits.

    Raises:
        DataError: the file is missing or broken, a column is missing, a row lacks a file, label
            or split, or two rows give one file different values.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"the labels {path} cannot be read: {error.strerror}") from None
    rows = _rows(data, path)
    if len(rows) < 2:
        raise DataError(f"{path} has no rows below its header; expected file,label")
    columns = _columns([cell.strip() for cell in rows[0][1]], path)
    cells = [(line, _cells(columns, row)) for line, row in rows[1:]]
    for name in ("file", "label"):
        empty = [f"line {line}" for line, row in cells if not row[name]]
        if empty:
            raise DataError(f"{path}: {len(empty)} rows have no {name}: {listing(empty)}")
    own = _splits([row["split"] for _, row in cells], splits, path) if "split" in columns else None
    return _distinct(
        [
            LabelRow(
                file=row["file"],
                label=row["label"],
                split=None if own is None else own[row["split"]],
                group=row["group"] if "group" in columns else None,
                line=line,
            )
            for line, row in cells
        ],
        path,
    )


class FileIndex:
    """Find the images of a folder by the names that a file of labels gives them."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Index paths below the root."""
        self._paths = frozenset(paths)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            name = path.rpartition("/")[2]
            for key in {name, name.rpartition(".")[0] or name}:
                self._by_name[key].append(path)

    def find(self, name: str) -> list[str]:
        """Return the images that a name may mean: one if it is clear, none if it is missing.

        A name is a path below the root; else the last folders of a path; else a file's name, with
        or without its suffix.
        """
        name = name.replace("\\", "/").removeprefix("./").lstrip("/")
        if name in self._paths:
            return [name]
        found = self._by_name.get(name.rpartition("/")[2], [])
        if "/" in name:
            ends = [f"/{name}" in f"/{path}" for path in found]
            return [path for path, fits in zip(found, ends, strict=True) if fits]
        exact = [path for path in found if path.rpartition("/")[2] == name]
        return exact or found


def _rows(data: bytes, path: Path) -> list[tuple[int, list[str]]]:
    """Return the non-empty rows with their lines."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file: {error}") from None


def _columns(header: Sequence[str], path: Path) -> dict[str, int]:
    """Return the position of each column that is present."""
    lower = [name.casefold() for name in header]
    found = {
        column: next((lower.index(name) for name in names if name in lower), None)
        for column, names in COLUMNS.items()
    }
    columns = {column: index for column, index in found.items() if index is not None}
    missing = [column for column in ("file", "label") if column not in columns]
    if missing and len(header) == 2:
        return {"file": 0, "label": 1}
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]} (or {', '.join(COLUMNS[missing[0]][1:4])} …); its "
            f"columns are {listing(header, 8)}"
        )
    return columns


def _cells(columns: Mapping[str, int], row: Sequence[str]) -> dict[str, str]:
    return {
        column: row[columns[column]].strip()
        if column in columns and columns[column] < len(row)
        else ""
        for column in COLUMNS
    }


def _splits(values: Sequence[str], splits: Splits | None, path: Path) -> dict[str, OwnSplit]:
    """Return the split that each value of the column stands for."""
    names = sorted(set(values))
    if splits is not None:
        known = chosen_splits(splits, names, where=f"the column of splits of {path}")
    else:
        known = match_splits(names, where=str(path))
    unknown = [name for name in names if name not in known]
    if unknown:
        count = sum(value in unknown for value in values)
        raise DataError(
            f"{path}: {count} rows have a split other than {', '.join(OWN_SPLITS)}: "
            f"{listing([name or '(empty)' for name in unknown])}; set dataset.splits"
        )
    return known


def _distinct(rows: Sequence[LabelRow], path: Path) -> tuple[LabelRow, ...]:
    """Return the rows without exact repeats."""
    first: dict[str, LabelRow] = {}
    for row in rows:
        known = first.setdefault(row.file, row)
        if (row.label, row.split, row.group) != (known.label, known.split, known.group):
            raise DataError(
                f"{path}: {printable(row.file)} has different entries in lines {known.line} and "
                f"{row.line}; keep one"
            )
    return tuple(first.values())
