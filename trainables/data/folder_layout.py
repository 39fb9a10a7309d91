"""Decide which folders of a tree are splits and which are classes.

Three layouts are read: `root/SPLIT/CLASS/*`, `root/CLASS/*` and `root/CLASS/SPLIT/*`. Below a
class, images may lie at any depth.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from common.errors import DataError
from common.formats import plural
from trainables.data.folder_tree import FolderTree, Parts, TreeFile
from trainables.data.notes import listing
from trainables.data.split_names import (
    OwnSplit,
    Splits,
    chosen_splits,
    example,
    match_splits,
    says_nothing,
    split_of,
)

MOST_SPLITS = 10
"""Largest number of folders that are taken for splits, or folds, by what they hold."""


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """An image with the split and the class that its folders give it."""

    file: TreeFile
    split: OwnSplit
    """`train` if the layout has no splits."""
    folder: str
    """Name of the class's folder, as it is on disk."""
    depth: int
    """Number of folders between the class's folder and the image; a split's folder not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The images of a folder in their splits and classes."""

    images: tuple[PlacedImage, ...]
    """Ordered by path."""
    splits: Mapping[str, OwnSplit]
    """The split of each split folder; empty without split folders."""
    outside: tuple[TreeFile, ...]
    """Images in a split's folder, or in the root, but in no class's."""
    aside: tuple[TreeFile, ...]
    """Images in folders beside the splits."""
    bases: Mapping[Parts, OwnSplit]
    """Folders whose sub-folders are classes, with their splits."""


def find_layout(tree: FolderTree, splits: Splits | None, *, where: str) -> Layout:
    """Return the layout of a tree; `splits` is the option `dataset.splits`.

    Without the option, a folder in the root is a split's if its name says so (see
    `split_names.match_splits`) and if it holds folders with images.

    Raises:
        DataError: the layout is ambiguous or a split has no classes; the message names the
            folders and the remedy, and starts with `where`.
    """
    images = tree.images
    tops = Counter(image.parts[0] for image in images if len(image.parts) > 1)
    nested = {image.parts[0] for image in images if len(image.parts) > 2}
    if splits is not None:  # an empty one says that no folder is a split's
        folders = [parts[0] for parts in tree.folders if len(parts) == 1]
        chosen = chosen_splits(splits, folders, where=where)
        _check_flat([name for name in chosen if name not in nested], tops, chosen, where)
    else:
        chosen = _recognised(tops, nested, where)
        if not chosen:
            _check_alike(images, where)
    if not chosen:
        return _by_class(images, where, divided=splits is None)
    bases = {_base(images, name, split): split for name, split in chosen.items()}
    _check_bases(images, bases, where)
    placed: list[PlacedImage] = []
    outside: list[TreeFile] = []
    aside: list[TreeFile] = []
    for image in images:
        base = next((base for base in bases if image.parts[: len(base)] == base), None)
        if base is None:
            within = image.parts[0] in chosen or len(image.parts) == 1
            (outside if within else aside).append(image)
        elif len(image.parts) - len(base) < 2:
            outside.append(image)
        else:
            at = len(base)
            depth = len(image.parts) - at - 2
            placed.append(PlacedImage(image, bases[base], image.parts[at], depth))
    return Layout(
        images=tuple(placed),
        splits=chosen,
        outside=tuple(outside),
        aside=tuple(aside),
        bases=bases,
    )


def _recognised(
    tops: Mapping[str, int], nested: Collection[str], where: str
) -> dict[str, OwnSplit]:
    """Return the folders that are splits; none if the folders are classes."""
    named = match_splits(tops, where=where)
    deep = {name: split for name, split in named.items() if name in nested}
    flat = [name for name in named if name not in nested]
    others = [name for name in tops if name not in named]
    if not deep:
        if len(flat) > 1 or (flat and not others and len(tops) > 1):
            _check_flat(flat, tops, named, where)
        return {}  # a single folder of images named `train` may well be a class
    _check_flat(flat, tops, named, where)
    if others and len(set(deep.values())) == 1:
        counted = f"{plural(sum(tops[name] for name in others), 'image')} in {listing(others, 5)}"
        name = next(iter(deep))
        trains = "train" in deep.values()
        train = next((other for other in others if other in nested), "NAME")
        choice = example({"train": name} if trains else {"train": train, deep[name]: name})
        remedy = f"leave them out with {choice}" if trains else f"say which is which, e.g. {choice}"
        raise DataError(
            f"{where} has {listing([*deep])}, which looks like a split, beside {counted}: move "
            f"these away, or {remedy}"
        )
    if "train" not in deep.values():
        if set(deep.values()) == {"test"}:
            raise DataError(f"{where} has images in test only; put the training images into train")
        first = next(name for name, split in deep.items() if split == "val")
        raise DataError(
            f"{where} has {listing([*deep])}, but no training images; to train on "
            f"{listing([first])}: {example({'train': first})}"
        )
    return deep


def _check_flat(
    flat: Sequence[str], tops: Mapping[str, int], named: Mapping[str, OwnSplit], where: str
) -> None:
    """Refuse splits whose images lie in no class's folder: they have no labels."""
    if not flat:
        return
    counted = ", ".join(f"{plural(tops.get(n, 0), 'image')} in {listing([n])}" for n in flat[:3])
    others: dict[str, str] = {
        split: name for name, split in reversed([*named.items()]) if name not in flat
    }
    use = f", or leave them out with {example(others)}" if "train" in others else ""
    raise DataError(
        f"{where}: {counted} are in no class's folder, so they have no labels: sort them into "
        f"{flat[0]}/CLASS/, or list them in a CSV file (dataset: {{labels: labels.csv}}){use}"
    )


def _check_bases(images: Sequence[TreeFile], bases: Mapping[Parts, OwnSplit], where: str) -> None:
    """Refuse a split's folder that holds nothing but folders of splits with classes in them."""
    for base in bases:
        at = len(base)
        below = {i.parts[at] for i in images if i.parts[:at] == base and len(i.parts) > at + 2}
        if len(below) > 1 and all(split_of(name) is not None for name in below):
            raise DataError(
                f"{where}: {'/'.join(base)} holds the splits {listing(sorted(below))}; give the "
                f"folder {'/'.join(base)} itself"
            )


def _check_alike(images: Sequence[TreeFile], where: str) -> None:
    """Refuse a few folders that hold folders of the same names.

    They may be splits in another language, folds, or classes that are all divided alike.
    """
    inside: dict[str, set[str]] = defaultdict(set)
    for image in images:
        if len(image.parts) == 2:
            return  # an image of its own, so the folder is a class
        if len(image.parts) > 2:
            inside[image.parts[0]].add(image.parts[1])
    if not 2 <= len(inside) <= MOST_SPLITS:
        return
    common, every = set.intersection(*inside.values()), set.union(*inside.values())
    named = sorted(name for name in common if not says_nothing(name))
    if len(named) < 2 or 2 * len(common) < len(every) or any(map(split_of, common)):
        return
    first, second, *_ = sorted(inside)
    raise DataError(
        f"{where}: {listing(sorted(inside), 5)} hold folders of the same names ({listing(named)}); "
        f"if they are splits, say which is which, e.g. "
        f"{example({'train': first, 'test': second})}; if they are classes, set "
        "dataset: {splits: {}}"
    )


def _base(images: Sequence[TreeFile], name: str, split: OwnSplit) -> Parts:
    """Return the folder whose sub-folders are classes: `train`, or `train/train` if it has one."""
    base: Parts = (name,)
    while True:
        at = len(base)
        inside = {
            image.parts[at] for image in images
            if image.parts[:at] == base and len(image.parts) > at + 1
        }  # fmt: skip
        if len(inside) != 1:
            return base
        only = next(iter(inside))
        deeper = any(image.parts[: at + 1] == (*base, only) and len(image.parts) > at + 2
                     for image in images)  # fmt: skip
        if not deeper or (split_of(only) != split and only != name):
            return base
        base = (*base, only)


def _by_class(images: Sequence[TreeFile], where: str, *, divided: bool) -> Layout:
    """Return the layout of folders of classes, which may hold a folder of each split.

    They hold none if not `divided`.

    Raises:
        DataError: some classes have splits, but other images lie beside them.
    """
    inside = [image for image in images if len(image.parts) > 1]
    second = {image.parts[1] if len(image.parts) > 2 else "" for image in inside}
    splits = {name: split for name in second if (split := split_of(name)) is not None}
    by_split = divided and len(set(splits.values())) > 1 and "train" in splits.values()
    stray = [image for image in inside if len(image.parts) == 2 or image.parts[1] not in splits]
    if by_split and stray:
        own: dict[str, set[str]] = defaultdict(set)
        for image in inside:
            if len(image.parts) > 2 and image.parts[1] in splits:
                own[image.parts[0]].add(splits[image.parts[1]])
        several = sorted(name for name, found in own.items() if len(found) > 1)
        if len(several) < 2:
            by_split = False  # a class may well hold a folder named `train`
        else:
            raise DataError(
                f"{where}: {listing(several, 5)} have the splits "
                f"{listing(sorted(splits))}, but {plural(len(stray), 'image')} lie beside them: "
                f"{listing([image.path for image in stray])}; move them into a split, or set "
                "dataset: {splits: {}} if these folders are no splits"
            )
    placed = [PlacedImage(image, "train", image.parts[0], len(image.parts) - 2) for image in inside]
    if by_split:
        placed = [
            replace(image, split=splits[image.file.parts[1]], depth=image.depth - 1)
            for image in placed
        ]
    return Layout(
        images=tuple(placed),
        splits=splits if by_split else {},
        outside=tuple(image for image in images if len(image.parts) == 1),
        aside=(),
        bases={(): "train"},
    )
