"""Find the Parquet files of each split below a folder."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common.errors import DataError
from common.formats import plural
from trainables.data.folder_tree import list_folder
from trainables.data.notes import Note, kinds_text, listing, note, printable
from trainables.data.split_names import (
    OWN_SPLITS,
    OwnSplit,
    Splits,
    listed_names,
    match_splits,
    split_of,
)

SHARD = re.compile(r"(?P<split>.+)-(?P<part>\d+)-of-(?P<parts>\d+)\b")
"""File names of the parts of a split on Hugging Face; a hash may follow."""


SUFFIXES = (".parquet", ".pq")

ACCOMPANYING = (*SUFFIXES, ".md", ".json", ".txt", ".yaml", ".yml", "license")
"""Ends of the names of files that usually lie beside a data set and hold no data of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFiles:
    """The files of a data set, train first, then val, then test."""

    splits: Mapping[Path, OwnSplit]
    names: Mapping[Path, str]
    """The part of each file's or folder's name that stands for the split."""
    notes: tuple[Note, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files in order."""
        return tuple(self.splits)


def find_parquet(
    root: Path, splits: Splits | None = None, *, named: bool = False
) -> ParquetFiles | None:
    """Return the Parquet files of a data set in `root`, else `root/data`, else one other folder.

    A file's split is that of its name's first word, or of the folder it lies in: `train.parquet`,
    `test-00000-of-00001.parquet`, `train/0000.parquet`. If no file's name says so, and there is no
    option `splits` (the part of the names before the numbers, or the folders' names), all files
    form train. None without files of train. `named` looks only in `root` and `root/data`, and only
    for files with the name of a split: a folder of images may hold other Parquet files.

    Raises:
        DataError: several folders hold training files, a part of a split is missing, or the
            option lists a name that no file has.
    """
    if not root.is_dir():
        return None
    by_base: dict[Path, dict[Path, str]] = defaultdict(dict)
    for path in _listed_files(root, deep=not named):
        below = path.relative_to(root).parts
        hidden = any(part.startswith(".") for part in below)
        if not hidden:
            inside = len(below) > 1 and _in_split_folder(below, splits)
            base = path.parent.parent if inside else path.parent
            by_base[base][path] = path.parent.name if inside else _name(path)
    found = {base: own for base, files in by_base.items() if (own := _own(files, splits, base))}
    if named:
        found = {
            base: own
            for base, own in found.items()
            if base in (root, root / "data") and (splits or _first_words(by_base[base].values()))
        }
    if not found:
        return None
    base = next(folder for folder in (root, root / "data", *found) if folder in found)
    if base not in (root, root / "data") and len(found) > 1:
        folders = listing([folder.relative_to(root).as_posix() for folder in found], 5)
        raise DataError(f"{root} holds several sets of Parquet files: {folders}; give one")
    own = found[base]
    _check_shards(sorted(own))
    order = sorted(own, key=lambda path: (OWN_SPLITS.index(own[path]), str(path)))
    others = [path for files in by_base.values() for path in files if path not in own]
    return ParquetFiles(
        splits={path: own[path] for path in order},
        names={path: by_base[base][path] for path in order},
        notes=(*_renamed(by_base[base], own), *_left_out(others, root)),
    )


def _listed_files(root: Path, *, deep: bool) -> list[Path]:
    patterns = ["**/*"] if deep else ["*", "*/*", "data/*/*"]
    found = {path for pattern in patterns for path in root.glob(f"{pattern}.[pP]*")}
    return sorted(p for p in found if p.suffix.lower() in SUFFIXES and p.is_file())


def _first_words(names: Iterable[str]) -> bool:
    """Return whether one of the names starts with the word of a split."""
    return any(split_of(re.split(r"[-_. ]", name)[0]) is not None for name in names)


def _in_split_folder(below: Sequence[str], splits: Splits | None) -> bool:
    if splits is not None:
        return below[-2] in listed_names(splits)
    return split_of(below[-2]) is not None


def _name(path: Path) -> str:
    """Return a file's name without suffix, part number and hash."""
    match = SHARD.match(path.name)
    stem = match["split"] if match is not None else path.stem
    return re.sub(r"[-_. ]*\d+$", "", stem) or stem


def _own(files: Mapping[Path, str], splits: Splits | None, base: Path) -> dict[Path, OwnSplit]:
    """Return the split of each file of one folder that has one; empty without train."""
    if splits is not None:
        chosen = {
            name: split
            for split in OWN_SPLITS
            for name in _names(splits.get(split, ()))
        }  # fmt: skip
        known = {*files.values()}
        if not known & set(chosen):
            return {}
        missing = sorted(set(chosen) - known)
        if missing:
            raise DataError(
                f"dataset.splits: {base} has no Parquet files {printable(missing[0])}*; it has "
                f"{listing(sorted(known), 10)}"
            )
        own = {path: chosen[name] for path, name in files.items() if name in chosen}
    else:
        matched = match_splits(dict.fromkeys(files.values()), where=str(base))
        for name in set(files.values()) - set(matched):
            first = split_of(re.split(r"[-_. ]", name)[0])
            if first is not None:
                matched[name] = first
        own = {path: matched[name] for path, name in files.items() if name in matched}
        if not own:
            own = dict.fromkeys(files, "train")
    return own if "train" in own.values() else {}


def _names(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _check_shards(files: Sequence[Path]) -> None:
    """Refuse a split with a missing part; names are like train-00001-of-00003.parquet."""
    present: dict[tuple[Path, str, int], set[int]] = {}
    for path in files:
        match = SHARD.match(path.name)
        if match is not None:
            key = (path.parent, match["split"], int(match["parts"]))
            present.setdefault(key, set()).add(int(match["part"]))
    for (folder, split, parts), numbers in present.items():
        missing = sorted(set(range(parts)) - numbers)
        if missing:
            raise DataError(
                f"{folder} has {len(numbers)} of {parts} parts of {split}; fetch "
                f"{split}-{missing[0]:05d}-of-{parts:05d}.parquet"
                f"{', …' if len(missing) > 1 else ''}"
            )


def _renamed(names: Mapping[Path, str], own: Mapping[Path, OwnSplit]) -> tuple[Note, ...]:
    """Return a note on the splits if a name is not simply that of its split."""
    called: dict[str, OwnSplit] = {names[path]: split for path, split in own.items()}
    if all(name == split for name, split in called.items()):
        return ()
    text = "; ".join(
        f"{split} is in {listing([f'{name}*' for name, other in called.items() if other == split])}"
        for split in OWN_SPLITS
        if split in called.values()
    )
    examples = tuple(printable(name) for name in called)
    return (Note(topic="splits", count=len(called), text=text, examples=examples[:3]),)


def beside(root: Path) -> Iterator[Note]:
    """Yield notes on the images and other data below `root`; documentation does not count."""
    try:
        files = list_folder(str(root)).files
    except OSError:  # a folder that cannot be listed has nothing to do with the data set
        return
    others = [
        file for file in files if not file.hidden and not file.path.lower().endswith(ACCOMPANYING)
    ]
    images = [file.path for file in others if file.type.kind != "other"]
    if images:
        yield note("beside_parquet", images, "beside the Parquet files, left out")
    rest = [file for file in others if file.type.kind == "other"]
    if rest:
        yield Note(
            topic="other_file",
            count=len(rest),
            text=f"{plural(len(rest), 'other file')} left out: "
            f"{kinds_text(file.type.name for file in rest)}",
            examples=tuple(printable(file.path) for file in rest[:3]),
        )


def _left_out(files: Sequence[Path], root: Path) -> tuple[Note, ...]:
    """Return a note on the rows of Parquet files that belong to no split."""
    if not files:
        return ()
    rows = 0
    for path in files:
        try:
            rows += pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError):
            continue
    names = [path.relative_to(root).as_posix() for path in files]
    text = f"{plural(rows, 'row')} left out in Parquet files of no split: {listing(names, 5)}"
    examples = tuple(printable(name) for name in names[:3])
    return (Note(topic="aside", count=rows, text=text, examples=examples),)
