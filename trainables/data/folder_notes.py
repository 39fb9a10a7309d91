"""Notes on what a folder holds besides the images of its classes."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from common.errors import DataError
from common.formats import plural
from trainables.data.class_names import clean_class_name
from trainables.data.folder_layout import Layout
from trainables.data.folder_tree import FolderTree, Parts, TreeFile
from trainables.data.image_formats import fix_of
from trainables.data.notes import Note, kinds_text, listing, note, printable
from trainables.data.split_names import OWN_SPLITS, split_of

NAMED_FOLDERS = 5
"""Largest number of folders that a note names."""


def layout_notes(layout: Layout) -> Iterator[Note]:
    """Yield notes on the splits and on the images that are in none, or in no class."""
    named = {
        split: sorted(name for name, own in layout.splits.items() if own == split)
        for split in OWN_SPLITS
        if split in layout.splits.values()
    }
    if any(names != [split] for split, names in named.items()):
        yield Note(
            topic="splits",
            count=len(layout.splits),
            text="; ".join(f"{split} is in {listing(names, 5)}" for split, names in named.items()),
            examples=tuple(printable(names[0]) for names in named.values()),
        )
    if layout.aside:
        by_folder = Counter(f"{file.parts[0]}/" for file in layout.aside)
        counted = ", ".join(f"{number:,} in {printable(n)}" for n, number in by_folder.items())
        yield Note(
            topic="aside",
            count=len(layout.aside),
            text=f"{plural(len(layout.aside), 'image')} beside the splits, left out: {counted}",
            examples=tuple(printable(name) for name in by_folder),
        )
    if layout.outside:
        paths = [file.path for file in layout.outside]
        yield note("outside_classes", paths, "in no class's folder, left out")
    nested = [image.file.path for image in layout.images if image.depth]
    if nested:
        below = sorted({path.rpartition("/")[0] for path in nested})
        yield Note(
            topic="nested",
            count=len(nested),
            text=f"{plural(len(nested), 'image')} in {plural(len(below), 'folder')} within "
            f"folders of classes have the outer folder's class: {listing(below)}",
            examples=tuple(printable(name) for name in below[:3]),
        )


def files_below(tree: FolderTree, depth: int) -> dict[Parts, list[TreeFile]]:
    """Return the files below each folder that is `depth` names deep."""
    found: dict[Parts, list[TreeFile]] = defaultdict(list)
    for file in tree.files:
        if len(file.parts) > depth:
            found[file.parts[:depth]].append(file)
    return found


def empty_splits(root: Path, tree: FolderTree, layout: Layout) -> Iterator[Note]:
    """Yield a note on the folders of splits without an image, where names tell the splits.

    Raises:
        DataError: such a folder has images in formats that are not read here.
    """
    if not layout.splits or () in layout.bases:
        return
    tops = [folder[0] for folder in tree.folders if len(folder) == 1]
    for name in tops:
        split = split_of(name)
        if split is None or split in layout.splits.values():
            continue
        files = [file for file in tree.files if file.parts[0] == name]
        unread = [file.type.name for file in files if file.type.kind == "unread"]
        if unread:
            fix = next((f"; {fix_of(kind)}" for kind in unread if fix_of(kind)), "")
            raise DataError(
                f"{root / name} has no image that can be read ({kinds_text(unread)}{fix}); put "
                "images there that can be read, or remove the folder"
            )
        if not any(file.is_image for file in files):
            text = f"{printable(name)} holds no images: {split} is drawn from train"
            yield Note(topic="empty_split", count=1, text=text, examples=(printable(name),))


def other_folders(tree: FolderTree, layout: Layout, class_names: Collection[str]) -> Iterator[Note]:
    """Yield a note on folders beside the classes that hold files, but no images."""
    others: dict[str, str] = {}
    for base in layout.bases:
        files = files_below(tree, len(base) + 1)
        for folder in tree.folders:
            beside = folder[:-1] == base and not (not base and folder[0] in layout.splits)
            name = clean_class_name(folder[-1])
            if beside and name not in class_names and not name.startswith("__"):
                kinds = kinds_text(file.type.name for file in files[folder])
                others["/".join(folder)] = f"{printable('/'.join(folder))} ({kinds or 'empty'})"
    if others:
        yield Note(
            topic="no_class",
            count=len(others),
            text=f"{plural(len(others), 'folder')} without images "
            f"{'is no class' if len(others) == 1 else 'are no classes'}: "
            f"{', '.join([*others.values()][:NAMED_FOLDERS])}"
            + (", …" if len(others) > NAMED_FOLDERS else ""),
            examples=tuple(printable(name) for name in others)[:3],
        )


def file_notes(files: Sequence[TreeFile]) -> Iterator[Note]:
    """Yield notes on files that are not images, or are in formats that are not read here."""
    unread = defaultdict(list)
    for file in files:
        if file.type.kind == "unread" and not file.hidden:
            unread[fix_of(file.type.name) or "pip install pillow-heif"].append(file)
    for fix, unreadable in unread.items():
        kinds = kinds_text(file.type.name for file in unreadable)
        paths = [file.path for file in unreadable]
        yield note("unread_format", paths, f"in formats not read here, left out ({kinds}; {fix})")
    hidden = [file for file in files if file.hidden]
    other = [file for file in files if file.type.kind == "other" and not file.hidden]
    for topic, group, what in (("other_file", other, "other"), ("hidden", hidden, "hidden")):
        if group:
            kinds = kinds_text(
                next((p for p in f.parts if p.startswith(".")), f.type.name) for f in group
            )
            yield Note(
                topic=topic,
                count=len(group),
                text=f"{plural(len(group), f'{what} file')} left out: {kinds}",
                examples=tuple(printable(file.path) for file in group[:3]),
            )
