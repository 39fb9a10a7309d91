"""Read folders of images: `root/SPLIT/CLASS/*`, `root/CLASS/*`, or any folder with a label file."""

import functools
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.errors import DataError, SpecError
from common.formats import plural
from trainables.data.class_names import clean_class_name, name_notes
from trainables.data.decoding import Contents, Source, evenly
from trainables.data.folder_layout import Layout, find_layout
from trainables.data.folder_notes import (
    empty_splits,
    file_notes,
    files_below,
    layout_notes,
    other_folders,
)
from trainables.data.folder_tree import FolderTree, list_folder
from trainables.data.group_names import groups_by_pattern
from trainables.data.image_formats import fix_of
from trainables.data.label_file import FileIndex, LabelRow, read_labels
from trainables.data.notes import Note, kinds_text, listing, note, printable
from trainables.data.pixels import NamedImage, decode_batches, short_sides
from trainables.data.resizing import Resizing
from trainables.data.split_names import OwnSplit, Splits

NAMED_FOLDERS = 5
"""Largest number of folders that an error names."""
BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """The images of a folder with what is known of each, ordered by path; N images."""

    paths: tuple[str, ...]
    """Below the root, with slashes."""
    labels: tuple[str, ...]
    splits: tuple[OwnSplit, ...] | None
    """None if no image has a split."""
    groups: tuple[str, ...] | None
    notes: tuple[Note, ...]


def folder_source(
    root: Path,
    *,
    labels: str | None = None,
    groups: str | None = None,
    splits: Splits | None = None,
) -> Source:
    """List the images of a folder; nothing is decoded yet.

    The layouts, and the names of splits, are those of `folder_layout.find_layout`. Folders with
    the same `clean_class_name` are one class. With `labels`, a CSV file (see `label_file`; its
    path is below `root` or the working directory) labels the images instead of their folders.
    `groups` is a pattern of the names of groups; see `group_names.groups_by_pattern`.
    Hidden files, other files, images in no class's folder, and folders beside the splits are left
    out; the source's notes count and name them. Images are ordered by relative path.

    Raises:
        DataError: the folder is missing, has no images, an ambiguous layout, or fewer than two
            classes; a class is empty, or all its images are in unsupported formats; listed images
            are missing.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; give the folder of the images")
    tree = list_folder(str(root))
    table = None if labels is None else _label_path(root, labels)
    if table is None:
        images = _by_folder(root, tree, splits)
    else:
        images = _by_file(root, tree, read_labels(table, splits or None), table)
    class_names = tuple(sorted(set(images.labels)))
    if len(class_names) < 2:
        raise DataError(
            f"only one class in {root}: {class_names[0]!r}; at least two are needed"
            f"{_nested_classes_hint(root, tree, class_names[0])}"
        )
    if groups is not None:
        images = _with_groups(images, groups, where=str(root))
    return _source(root, images, class_names)


def _with_groups(images: LabelledImages, pattern: str, *, where: str) -> LabelledImages:
    if images.groups is not None:
        raise SpecError("groups: the file of labels has a column group; drop one of them")
    found, notes = groups_by_pattern(pattern, images.paths, where=where)
    return replace(images, groups=found, notes=(*images.notes, *notes))


def _source(root: Path, images: LabelledImages, class_names: tuple[str, ...]) -> Source:
    index = {name: i for i, name in enumerate(class_names)}
    labels = np.array([index[name] for name in images.labels], np.int64)
    named: list[NamedImage] = [(path, root / path) for path in images.paths]

    def read(resizing: Resizing) -> Contents:
        batches = (named[i : i + BATCH] for i in range(0, len(named), BATCH))
        return Contents(
            labels=labels,
            class_names=class_names,
            is_test=_in_split(images, "test"),
            is_val=_in_split(images, "val"),
            groups=images.groups,
            batches=decode_batches(batches, resizing),
        )

    about = [images.paths, images.labels, images.splits, images.groups]
    return Source(
        kind="imagefolder",
        name=root.resolve().name,
        root=root,
        files=tuple(root / path for path in images.paths),
        short_sides=lambda: short_sides(evenly(named)),
        read=read,
        annotations=hashlib.sha256(json.dumps(about).encode()).hexdigest(),
        notes=images.notes,
    )


def _in_split(images: LabelledImages, split: OwnSplit) -> np.ndarray | None:
    """Return which images are in the data set's own split, bool [N]; None if it has none."""
    if images.splits is None or split not in images.splits:
        return None
    return np.array([name == split for name in images.splits])


def _by_folder(root: Path, tree: FolderTree, splits: Splits | None) -> LabelledImages:
    layout = find_layout(tree, splits, where=str(root))
    if not layout.images:
        raise DataError(
            f"no images in {root}: expected root/CLASS/* or root/{{train,test}}/CLASS/*"
            f"{_found(tree)}; images without folders of classes need a file of labels: "
            "dataset: {labels: labels.csv}"
        )
    clean = functools.cache(clean_class_name)
    labels = tuple(clean(image.folder) for image in layout.images)
    _check_empty(root, tree, layout, set(labels))
    used = {image.file.parts for image in layout.images}
    return LabelledImages(
        paths=tuple(image.file.path for image in layout.images),
        labels=labels,
        splits=tuple(image.split for image in layout.images) if layout.splits else None,
        groups=None,
        notes=(
            *layout_notes(layout),
            *(empty_splits(root, tree, layout) if splits is None else ()),
            *other_folders(tree, layout, set(labels)),
            *name_notes([image.folder for image in layout.images]),
            *file_notes([file for file in tree.files if file.parts not in used]),
        ),
    )


def _by_file(root: Path, tree: FolderTree, rows: Sequence[LabelRow], table: Path) -> LabelledImages:
    """Return the images that a file of labels lists."""
    candidates = tree.images
    index = FileIndex([file.path for file in candidates])
    found: dict[str, LabelRow] = {}
    missing: list[str] = []
    for row in rows:
        paths = index.find(row.file)
        if len(paths) > 1:
            raise DataError(
                f"{table}, line {row.line}: {printable(row.file)} may be "
                f"{printable(paths[0])} or {printable(paths[1])}; write paths below {root}"
            )
        if not paths:
            missing.append(row.file)
        elif paths[0] in found:
            raise DataError(
                f"{table}: lines {found[paths[0]].line} and {row.line} both mean "
                f"{printable(paths[0])}; keep one"
            )
        else:
            found[paths[0]] = row
    if missing:
        _check_unread(missing, tree, table)
        raise DataError(
            f"{len(missing)} of {len(rows)} images listed in {table} are not in {root}: "
            f"{listing(missing)}; add them, or remove these lines"
        )
    paths_found = sorted(found)
    chosen = [found[path] for path in paths_found]
    unlisted = [file.path for file in candidates if file.path not in found]
    rest = [f for f in tree.files if not f.is_image and root / f.path != table]
    not_listed = f"not listed in {table.name}, left out"
    notes = [note("unlisted", unlisted, not_listed)] if unlisted else []
    return LabelledImages(
        paths=tuple(paths_found),
        labels=tuple(clean_class_name(row.label) for row in chosen),
        splits=None if any(row.split is None for row in chosen)
        else tuple(row.split for row in chosen if row.split is not None),
        groups=None if chosen[0].group is None else tuple(row.group or "" for row in chosen),
        notes=(*notes, *name_notes([row.label for row in chosen]), *file_notes(rest)),
    )  # fmt: skip


def _check_unread(missing: Sequence[str], tree: FolderTree, table: Path) -> None:
    """Refuse listed images that are there, but in formats that are not read here."""
    unread = [file for file in tree.files if file.type.kind == "unread" and not file.hidden]
    index = FileIndex([file.path for file in unread])
    listed = {path for name in missing for path in index.find(name)}
    kinds = [file.type.name for file in unread if file.path in listed]
    if kinds:
        fix = next((f"; {fix_of(kind)}" for kind in kinds if fix_of(kind)), "")
        raise DataError(
            f"{plural(len(kinds), 'image')} listed in {table} cannot be read here "
            f"({kinds_text(kinds)}{fix}), e.g. {printable(sorted(listed)[0])}"
        )


def _label_path(root: Path, labels: str) -> Path:
    below = root / Path(labels).expanduser()
    return below if below.exists() else Path(labels).expanduser()


def _check_empty(
    root: Path, tree: FolderTree, layout: Layout, class_names: Collection[str]
) -> None:
    """Refuse folders that look like classes but have no image that can be read.

    A folder that holds only other kinds of files, e.g. annotations, is ignored.
    """
    empty: dict[str, str] = {}
    for base in layout.bases:
        below = files_below(tree, len(base) + 1)
        for folder in tree.folders:
            if folder[:-1] != base or (not base and folder[0] in layout.splits):
                continue
            name = clean_class_name(folder[-1])
            if name in class_names or name.startswith("__"):
                continue
            files = below[folder]
            unread = [file.type.name for file in files if file.type.kind == "unread"]
            if unread or not files:
                empty[name] = kinds_text(unread) or "empty"
                fix = next((fix_of(kind) for kind in unread if fix_of(kind)), "")
                empty[name] += f": {fix}" if fix else ""
    if empty:
        named = ", ".join(
            f"{name} ({files})" for name, files in sorted(empty.items())[:NAMED_FOLDERS]
        )
        more = f" and {len(empty) - NAMED_FOLDERS} more" if len(empty) > NAMED_FOLDERS else ""
        raise DataError(
            f"classes of {root} without a readable image: {named}{more}; put images there that "
            "can be read, or remove these folders"
        )


def _found(tree: FolderTree) -> str:
    """Return the most common kinds of the files, for a message."""
    kinds = kinds_text(file.type.name for file in tree.files if not file.hidden)
    return f"; found {kinds}" if kinds else ""


def _nested_classes_hint(root: Path, tree: FolderTree, name: str) -> str:
    """Return a hint if the classes are one folder lower."""
    tops = {image.parts[0] for image in tree.images if clean_class_name(image.parts[0]) == name}
    below = {image.parts[1] for image in tree.images if len(image.parts) > 2}
    if len(tops) != 1 or len(below) < 2:
        return ""
    return f"; the classes seem to be in {root / next(iter(tops))}: use that folder"
