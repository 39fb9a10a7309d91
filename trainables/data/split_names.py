"""Recognise the names of splits: `Training`, `test_set`, `val2017`, `seg_train`."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from common.errors import DataError, SpecError
from common.parsing import check_key
from trainables.data.notes import listing, printable

OwnSplit = Literal["train", "val", "test"]
"""A split that a data set brings along."""

OWN_SPLITS: tuple[OwnSplit, ...] = ("train", "val", "test")

WORDS: Mapping[str, OwnSplit] = {
    "train": "train", "training": "train", "trn": "train", "trainval": "train",
    "val": "val", "valid": "val", "validate": "val", "validation": "val",
    "dev": "val", "devel": "val", "development": "val",
    "test": "test", "testing": "test", "tst": "test",
    "eval": "test", "evaluate": "test", "evaluation": "test",
}  # fmt: skip
"""Words that name a split."""

FILLERS = (
    "dataset", "set", "data", "split", "images", "image", "imgs", "img", "pictures", "photos",
    "folder", "dir", "directory", "files", "samples", "examples", "part",
)  # fmt: skip
"""Words that say nothing about the split, alone or glued to one: `trainset`."""

Splits = Mapping[str, str | tuple[str, ...]]
"""The option `dataset.splits`: the names that hold each own split."""


def split_of(name: str) -> OwnSplit | None:
    """Return the split that a name stands for, or None.

    The name is divided into words, at capitals within it and at everything that is not a letter.
    Words in FILLERS are dropped. If all others are WORDS of one split, the name stands for it.
    """
    split, others = _parse(name)
    return None if others else split


def says_nothing(name: str) -> bool:
    """Return whether all words of a name are FILLERS, e.g. `images_2`; a number has none."""
    return bool(_words(name)) and _parse(name) == (None, ())


def match_splits(names: Iterable[str], *, where: str) -> dict[str, OwnSplit]:
    """Return the split of each name that stands for one.

    Besides `split_of`, names that differ only in the split's word are recognised if they name two
    splits or more: `seg_train` and `seg_test`. Several names may stand for one split.

    Raises:
        DataError: `eval` stands beside `test`, so that it may be either val or test. `where`
            names the place.
    """
    found: dict[str, OwnSplit] = {}
    families: dict[tuple[str, ...], dict[str, OwnSplit]] = {}
    for name in names:
        split, others = _parse(name)
        if split is not None:
            families.setdefault(others, {})[name] = split
    for others, members in families.items():
        if not others or len(set(members.values())) > 1:
            found |= members
    plain = [name for name, split in found.items() if split == "train" and not _has_val(name)]
    if plain:  # `trainval` beside `train` holds the images of train and val again
        found = {
            name: split for name, split in found.items() if not _has_val(name) or split != "train"
        }
    evaluation = [name for name, split in found.items() if split == "test" and _is_eval(name)]
    test = [name for name, split in found.items() if split == "test" and not _is_eval(name)]
    if evaluation and test:
        raise DataError(
            f"{where} has {listing(test)} and {listing(evaluation)}, and either may be its test "
            f"split; say which is which, e.g. {example({'test': test[0], 'val': evaluation[0]})}"
        )
    return found


def chosen_splits(splits: Splits, names: Collection[str], *, where: str) -> dict[str, OwnSplit]:
    """Return the split of each of the names that the option `dataset.splits` lists.

    Raises:
        DataError: a listed name is not in `names`.
    """
    chosen: dict[str, OwnSplit] = {}
    for split in OWN_SPLITS:
        listed = splits.get(split, ())
        for name in (listed,) if isinstance(listed, str) else listed:
            if name not in names:
                raise DataError(
                    f"dataset.splits: {where} has no {printable(name)!r}; it has "
                    f"{listing(sorted(names), 10) or 'nothing'}"
                )
            chosen[name] = split
    return chosen


def check_splits(splits: Splits) -> None:
    """Refuse an option `dataset.splits` with unknown splits, without train, or with repeats.

    An empty one is allowed: no folder is a split's.

    Raises:
        SpecError: the message names the key or the repeated name.
    """
    for key in splits:
        check_key(key, OWN_SPLITS, where="splits")
    if not splits:
        return  # none of the folders is a split's
    if "train" not in splits:
        raise SpecError("splits must name the training data: splits: {train: NAME}")
    listed = [
        n for names in splits.values() for n in ((names,) if isinstance(names, str) else names)
    ]
    repeated = [name for name in listed if listed.count(name) > 1]
    if repeated:
        raise SpecError(f"splits lists {repeated[0]!r} twice")


def listed_names(splits: Splits) -> set[str]:
    """Return the names that the option `dataset.splits` lists."""
    return {
        name
        for names in splits.values()
        for name in ((names,) if isinstance(names, str) else names)
    }


def example(splits: Mapping[str, str]) -> str:
    """Return the YAML of the option `dataset.splits` for a message; `train` is added if missing."""
    pairs = {"train": "train", **splits}
    inner = ", ".join(f"{split}: {printable(name)}" for split, name in pairs.items())
    return f"dataset: {{splits: {{{inner}}}}}"


def _parse(name: str) -> tuple[OwnSplit | None, tuple[str, ...]]:
    """Return the split that the words of a name stand for, and its other words."""
    splits: set[OwnSplit] = set()
    others: list[str] = []
    for word in _words(name):
        split = _split_of_word(word)
        if split is not None:
            splits.add(split)
        elif word not in FILLERS:
            others.append(word)
    if splits == {"train", "val"}:  # `train_val`, as in Pascal VOC, is all that may be trained on
        splits = {"train"}
    if len(splits) != 1:
        return None, tuple(others)
    return splits.pop(), tuple(others)


def _words(name: str) -> Sequence[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [word.casefold() for word in re.findall(r"[^\W\d_]+", spaced)]


def _split_of_word(word: str) -> OwnSplit | None:
    candidates = [word]
    for filler in FILLERS:
        candidates += [word.removesuffix(filler), word.removeprefix(filler)]
    return next((WORDS[candidate] for candidate in candidates if candidate in WORDS), None)


def _has_val(name: str) -> bool:
    return "val" in "".join(_words(name)).replace("evaluat", "")


def _is_eval(name: str) -> bool:
    return any(word.startswith("eval") for word in _words(name))
