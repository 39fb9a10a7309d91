"""Read a CSV file of labels for a folder of images: `file,label[,split][,group]`."""

import codecs
import csv
import io
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataError
from trainables.data.notes import listing, printable
from trainables.data.split_names import (
    OWN_SPLITS,
    OwnSplit,
    Splits,
    chosen_splits,
    listed_names,
    match_splits,
    split_of,
)

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "file": ("file", "filename", "file_name", "path", "filepath", "file_path", "image",
             "image_path", "image_name", "image_id", "img", "id", "name"),
    "label": ("label", "labels", "class", "class_name", "category", "target", "species", "breed"),
    "split": ("split", "set", "subset", "fold_name", "usage", "partition"),
    "group": ("group", "group_id", "patient", "patient_id", "subject"),
}  # fmt: skip
"""Accepted names of columns, in any capitals, in order of preference. Several label columns must
correspond one to one. A column is that of the splits, under any name, if all its values are names
of splits, train and another among them, or if it has all values in `dataset.splits`."""


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

    Columns are found by name (see COLUMNS). In a file of two columns, one known name is enough; if
    neither is known, the file is first and the label second. `splits` is the option
    `dataset.splits`, for the values in the column of splits.

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
    header = [cell.strip() for cell in rows[0][1]]
    columns = _columns(header, [row for _, row in rows[1:]], path)
    columns |= _split_column(header, [row for _, row in rows[1:]], columns, splits, path)
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
            name = _composed(path).rpartition("/")[2]
            for key in {name, name.rpartition(".")[0] or name}:
                self._by_name[key].append(path)

    def find(self, name: str) -> list[str]:
        """Return the images that a name may mean: one if it is clear, none if it is missing.

        A name is a path below the root; else the last folders of a path; else a file's name, with
        or without its suffix. Accents may be composed or not: file systems change them.
        """
        name = name.replace("\\", "/").removeprefix("./").lstrip("/")
        if name in self._paths:
            return [name]
        name = _composed(name)
        found = self._by_name.get(name.rpartition("/")[2], [])
        if "/" in name:
            ends = [f"/{name}" in f"/{_composed(path)}" for path in found]
            return [path for path, fits in zip(found, ends, strict=True) if fits]
        exact = [path for path in found if _composed(path).rpartition("/")[2] == name]
        return exact or found


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _rows(data: bytes, path: Path) -> list[tuple[int, list[str]]]:
    """Return the non-empty rows with their lines."""
    text = _text(data, path)
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file: {error}") from None


def _text(data: bytes, path: Path) -> str:
    """Decode UTF-8 or UTF-16 with their marks, else Windows-1252.

    Raises:
        DataError: it is in none of them, so that different names might be read as one.
    """
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if utf16 else ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            at = data[error.start]
    raise DataError(f"{path} is neither UTF-8 nor Windows-1252 (byte 0x{at:02x}); save it as UTF-8")


def _split_column(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    columns: Mapping[str, int],
    splits: Splits | None,
    path: Path,
) -> dict[str, int]:
    """Return the position of the column of splits, if there is one.

    Raises:
        DataError: columns give an image different splits, or none has the names in `splits`.
    """
    free = [index for index in range(len(header)) if index not in columns.values()]
    values = {index: [_cell(row, index) for row in rows] for index in free}
    if splits is not None:
        listed = listed_names(splits)
        chosen = [index for index in free if listed <= {*values[index]}]
        if not chosen:
            raise DataError(
                f"dataset.splits: no column of {path} has the values {listing(sorted(listed))}"
            )
        return {"split": chosen[0]}
    found = [
        index
        for index in free
        if all(split_of(value) for value in values[index])
        and len(own := {split_of(value) for value in values[index]}) > 1
        and "train" in own
    ]
    for other in found[1:]:
        pairs = zip(values[found[0]], values[other], strict=True)
        if any(split_of(first) != split_of(second) for first, second in pairs):
            raise DataError(
                f"{path}: the columns {header[found[0]]} and {header[other]} give images different "
                "splits; keep one"
            )
    named = [index for index in free if header[index].casefold() in COLUMNS["split"]]
    some = [index for index in named if any(split_of(value) for value in values[index])]
    whole = [index for index in named if header[index].casefold() == "split"]
    best = (found or some or whole)[:1]
    return {"split": best[0]} if best else {}


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]], path: Path) -> dict[str, int]:
    """Return the position of each column that is present, but for that of the splits."""
    lower = [name.casefold() for name in header]
    found: dict[str, int | None] = {}
    for column in ("file", "label", "group"):
        given = [i for name in COLUMNS[column] for i, own in enumerate(lower) if own == name]
        found[column] = given[0] if given else None
        repeated = [i for i in given if lower.count(lower[i]) > 1]
        others = given[1:] if column == "label" else repeated[1:]
        if any(not _correspond(rows, given[0], other) for other in others):
            raise DataError(
                f"{path} has several columns that may be the {column}: "
                f"{listing([header[i] for i in given])}; keep one"
            )
    columns = {column: index for column, index in found.items() if index is not None}
    missing = [column for column in ("file", "label") if column not in columns]
    if missing and len(header) == 2:
        file = columns.get("file", 1 - columns["label"] if "label" in columns else 0)
        return {"file": file, "label": 1 - file}
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]} (or {', '.join(COLUMNS[missing[0]][1:4])} …); its "
            f"columns are {listing(header, 8)}"
        )
    return columns


def _correspond(rows: Sequence[Sequence[str]], first: int, second: int) -> bool:
    """Return whether two columns name the same things, e.g. classes by number and by name."""
    pairs = {(_cell(row, first), _cell(row, second)) for row in rows}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def _cell(row: Sequence[str], index: int) -> str:
    return row[index].strip() if index < len(row) else ""


def _cells(columns: Mapping[str, int], row: Sequence[str]) -> dict[str, str]:
    return {column: _cell(row, columns[column]) if column in columns else "" for column in COLUMNS}


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
        named = listing([name or "(empty)" for name in unknown])
        if splits is not None:
            raise DataError(
                f"{path}: {count} rows have splits that dataset.splits does not list: {named}; add "
                "them to it"
            )
        raise DataError(
            f"{path}: {count} rows have a split other than {', '.join(OWN_SPLITS)}: {named}; set "
            "dataset.splits"
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
