"""Splits depend only on the content of each image, and nothing leaks between them."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from common.errors import DataError, SpecError
from common.seeds import derive_seed
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_set import ImageSet
from trainables.data.splits import FLOOR_SHARE, SPLITS, Splits, SplitSpec, make_splits

NAMES = ("a", "b")


def image_set(
    contents: list[int],
    *,
    labels: list[int] | None = None,
    is_test: list[bool] | None = None,
    is_val: list[bool] | None = None,
    groups: list[str] | None = None,
    names: tuple[str, ...] = NAMES,
) -> ImageSet:
    """Return one 2×2 image per number; equal numbers are exact copies."""
    images = np.zeros((len(contents), 2, 2, 3), np.uint8)
    images.reshape(-1, 12)[:, :4] = np.array(contents, "<u4")[:, None].view(np.uint8)
    return ImageSet(
        name="set",
        images=images,
        labels=np.arange(len(contents)) % 2 if labels is None else np.array(labels),
        class_names=names,
        is_test=None if is_test is None else np.array(is_test),
        is_val=None if is_val is None else np.array(is_val),
        groups=None if groups is None else tuple(groups),
    )


def where(splits: Splits, count: int) -> list[str]:
    """Return the split of each image; an empty string for none."""
    names = [""] * count
    for name in SPLITS:
        for i in getattr(splits, name):
            assert not names[i], "the splits overlap"
            names[i] = name
    return names


def slow_u(image: np.ndarray, group: str, stream: str, seed: int) -> float:
    """Compute u of one image from its definition."""
    height, width, _ = image.shape
    content = f"{height}x{width}:".encode() + image.tobytes()
    unit = hashlib.blake2b(content, digest_size=16).digest()
    if group:
        unit = hashlib.blake2b(group.encode(), digest_size=16, person=b"group").digest()
    return keyed(unit, stream, seed)


def keyed(unit: bytes, stream: str, seed: int) -> float:
    key = derive_seed(seed, "splits", stream).to_bytes(8, "big")
    digest = hashlib.blake2b(unit, digest_size=8, key=key).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def slow_share_out(
    total: int, shares: list[Fraction], most: list[int], owed: list[Fraction], ties: list[float]
) -> list[int]:
    """Round shares to whole numbers with a given total by the largest remainders."""
    numbers = [min(math.floor(share), most[k]) for k, share in enumerate(shares)]
    order = sorted(
        range(len(shares)), key=lambda k: (shares[k].denominator == 1, -owed[k], ties[k])
    )
    for k in order:
        if sum(numbers) < total and numbers[k] < most[k]:
            numbers[k] += 1
    return numbers


def slow_splits(images: ImageSet, spec: SplitSpec) -> list[str]:
    """Apply the documented rule with sorted lists, for sets without copies, groups, own splits."""
    names = [""] * len(images)
    classes = range(len(images.class_names))
    labels = images.labels.tolist()

    def ranked(k: int, stream: str) -> list[int]:
        """Return the images of class k that have no split yet, by u."""
        rest = [i for i, name in enumerate(names) if not name and labels[i] == k]
        return sorted(rest, key=lambda i: slow_u(images.images[i], "", stream, spec.seed))

    def fill(name: str, stream: str, fraction: Fraction, of: list[int], floor: int) -> Fraction:
        total = max(1, math.floor(fraction * sum(of) + Fraction(1, 2)))
        raised = min(floor, math.floor(Fraction(FLOOR_SHARE) * sum(of)))
        if raised > total:
            total, fraction = raised, Fraction(raised, sum(of))
        ties = [
            keyed(hashlib.blake2b(name.encode(), digest_size=16, person=b"class").digest(),
                  split, spec.seed)
            for split in (name,) for name in images.class_names
        ]  # fmt: skip
        before = Fraction(0) if name != "val" else holdout
        had = [names.count("holdout") and sum(
            names[i] == "holdout" and labels[i] == k for i in range(len(names))) for k in classes
        ] if name == "val" else [0 for _ in classes]  # fmt: skip
        numbers = slow_share_out(
            total,
            [fraction * of[k] for k in classes],
            [max(0, len(ranked(k, stream)) - 1) for k in classes],
            [(before + fraction) * of[k] - had[k] for k in classes],
            ties,
        )
        for k in classes:
            for i in ranked(k, stream)[: numbers[k]]:
                names[i] = name
        return fraction

    def sizes() -> list[int]:
        return [len(ranked(k, "split")) for k in classes]

    fill("test", "test", exact(spec.test), sizes(), 0)
    of = sizes()
    holdout = fill("holdout", "split", exact(spec.holdout), of, spec.floor)
    fill("val", "split", exact(spec.val), of, spec.floor)
    return [name or "train" for name in names]


def exact(fraction: float) -> Fraction:
    return Fraction(str(fraction))


def uneven(sizes: list[int], *, start: int = 0, seed: int = 0) -> ImageSet:
    """Return distinct images of as many classes as there are sizes, in a random order."""
    labels = [k for k, size in enumerate(sizes) for _ in range(size)]
    order = np.random.default_rng(seed).permutation(len(labels)).tolist()
    return image_set(
        [start + i for i in order],
        labels=[labels[i] for i in order],
        names=tuple(f"class {k}" for k in range(len(sizes))),
    )


def class_counts(images: ImageSet, splits: Splits) -> dict[str, np.ndarray]:
    """Return the images of each class in each split, int [K]."""
    classes = len(images.class_names)
    return {
        name: np.bincount(images.labels[getattr(splits, name)], minlength=classes)
        for name in SPLITS
    }


class_sizes = st.lists(st.integers(1, 60), min_size=2, max_size=8).filter(lambda s: max(s) >= 12)
fractions = st.sampled_from([0.05, 0.1, 0.15, 0.2, 0.29, 0.33])


@given(
    class_sizes, fractions, fractions, fractions, st.sampled_from([0, 5, 400]), st.integers(-5, 5)
)
def test_splits_equal_the_slow_rule(
    sizes: list[int], test: float, holdout: float, val: float, floor: int, seed: int
) -> None:
    images = uneven(sizes, start=seed + 5, seed=seed + 5)
    spec = SplitSpec(seed=seed, floor=floor, test=test, val=val, holdout=holdout)
    splits = make_splits(images, spec)
    assert where(splits, len(images)) == slow_splits(images, spec)
    assert splits.leaked == 0
    assert sum(splits.sizes.values()) == len(images)
    for name in SPLITS:
        indices = getattr(splits, name)
        assert indices.dtype == np.int64
        assert (np.diff(indices) > 0).all()


@given(class_sizes, st.integers(0, 10**6), st.sampled_from([0, 400]))
def test_every_class_gets_its_share_of_every_split(sizes: list[int], seed: int, floor: int) -> None:
    """Shares are rounded up or down; the last image of a class stays in train."""
    images = uneven(sizes)
    splits = make_splits(images, SplitSpec(seed=seed, floor=floor))
    counts = class_counts(images, splits)
    whole = np.array(sizes)
    rest = whole - counts["test"]
    bound = {
        name: max(share, min(floor, int(FLOOR_SHARE * rest.sum())) / rest.sum(), 1 / rest.sum())
        for name, share in (("holdout", 0.1), ("val", 0.05))
    }
    assert (counts["train"] >= 1).all()
    assert (np.abs(counts["test"] - 0.2 * whole) < 1 + 1e-9).all()
    for name, share in bound.items():
        assert (np.abs(counts[name] - share * rest) < 1 + 1e-9).all()
    assert (np.abs(counts["train"] - (1 - sum(bound.values())) * rest) < 2).all()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([200] * 37, {"train": 4928, "val": 400, "holdout": 592, "test": 1480}),  # Pets
        ([60] * 200, {"train": 8160, "val": 480, "holdout": 960, "test": 2400}),  # CUB, pooled
        ([300] * 2, {"train": 288, "val": 96, "holdout": 96, "test": 120}),
        ([100] * 2, {"train": 96, "val": 32, "holdout": 32, "test": 40}),
        ([2500] * 2, {"train": 3200, "val": 400, "holdout": 400, "test": 1000}),
        ([6, 6], {"train": 6, "val": 2, "holdout": 2, "test": 2}),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_ordinary_sets_have_the_documented_sizes(
    sizes: list[int], expected: dict[str, int], seed: int
) -> None:
    """Floors of 400 leave train at least three fifths of the images outside test."""
    images = uneven(sizes)
    splits = make_splits(images, SplitSpec(seed=seed))
    assert splits.sizes == expected
    for counts in class_counts(images, splits).values():
        assert counts.max() - counts.min() <= 1


def with_own_splits(
    classes: int, train: int, *, val: int = 0, test: Sequence[int] = (0, 0)
) -> ImageSet:
    """Return a set with this many images a class; own test splits have from test[0] to test[1]."""
    sizes = np.random.default_rng(classes).integers(test[0], test[1] + 1, classes).tolist()
    own = [(k, split) for k in range(classes)
           for split in ["train"] * train + ["val"] * val + ["test"] * sizes[k]]  # fmt: skip
    return image_set(
        list(range(len(own))),
        labels=[k for k, _ in own],
        is_val=[split == "val" for _, split in own] if val else None,
        is_test=[split == "test" for _, split in own] if any(sizes) else None,
        names=tuple(f"class {k}" for k in range(classes)),
    )


@pytest.mark.parametrize(
    "images",
    [
        with_own_splits(200, 30, test=(11, 30)),  # CUB-200-2011's list, 60 or fewer a class
        with_own_splits(200, 60),
        with_own_splits(102, 10, val=10, test=(20, 238)),  # Oxford Flowers' lists
        with_own_splits(102, 10, val=10),
        with_own_splits(102, 20, test=(20, 20)),
        uneven([max(2, round(500 * 0.95**k)) for k in range(100)]),  # a long tail
    ],
    ids=["CUB", "CUB pooled", "Flowers", "Flowers without test", "20 a class", "long tail"],
)
def test_sets_of_many_small_classes_are_never_refused(images: ImageSet) -> None:
    """No seed of 40 fails, every class is learned from, and own splits stay as they are."""
    for seed in range(40):
        splits = make_splits(images, SplitSpec(seed=seed))
        counts = class_counts(images, splits)
        assert counts["train"].min() >= 1
        assert splits.leaked == 0
        assert all(count.sum() >= 100 for count in counts.values())
        for name, own in (("test", images.is_test), ("val", images.is_val)):
            if own is not None:
                assert np.array_equal(getattr(splits, name), np.flatnonzero(own))


def test_u_is_uniform_and_independent_of_the_test_draw_and_the_seed() -> None:
    """Use 5,000 images, two streams, two seeds. False alarm: below 1e-5 (ten tests at 1e-6)."""
    images = image_set(list(range(5000)))
    columns = [
        [slow_u(image, "", stream, seed) for image in images.images]
        for stream in ("split", "test")
        for seed in (0, 1)
    ]
    for column in columns:
        assert kstest(column, "uniform").pvalue > 1e-6
    for i, column in enumerate(columns):
        for other in columns[:i]:
            cells = Counter(zip(np.floor(np.multiply(column, 5)), np.floor(np.multiply(other, 5)),
                                strict=True))  # fmt: skip
            assert len(cells) == 25
            assert chisquare(list(cells.values())).pvalue > 1e-6


@given(st.lists(st.integers(10**6, 10**7), min_size=1, max_size=50, unique=True), st.integers(0, 3))
def test_new_images_move_few_others(new: list[int], seed: int) -> None:
    """Each new image moves at most one other in each direction of each boundary of a class."""
    old = uneven([100, 150, 50])
    contents = old.images.reshape(-1, 12)[:, :4].copy().view("<u4").reshape(-1).tolist()
    labels = old.labels.tolist()
    spec = SplitSpec(seed=seed, floor=0, val=0.2, holdout=0.2)
    before = where(make_splits(old, spec), 300)
    order = np.random.default_rng(seed).permutation(300 + len(new)).tolist()
    more = image_set(
        [[*contents, *new][i] for i in order],
        labels=[[*labels, *(value % 3 for value in new)][i] for i in order],
        names=old.class_names,
    )
    after = where(make_splits(more, spec), len(more))
    moved = sum(after[order.index(i)] != before[i] for i in range(300))
    assert moved <= 6 * len(new)
    assert len(new) < 10 or moved <= 2.5 * len(new)


@given(class_sizes, st.integers(0, 1000))
def test_splits_do_not_depend_on_the_order_or_the_size_of_the_images(
    sizes: list[int], seed: int
) -> None:
    images = uneven(sizes)
    order = np.random.default_rng(seed).permutation(len(images))
    shuffled = ImageSet(
        name="other",
        images=np.zeros((len(images), 5, 5, 3), np.uint8),
        digests=np.asarray(images.digests)[order],
        labels=images.labels[order],
        class_names=images.class_names,
    )
    names = where(make_splits(images, SplitSpec(seed=seed)), len(images))
    others = where(make_splits(shuffled, SplitSpec(seed=seed)), len(images))
    assert others == [names[i] for i in order]


@given(st.integers(0, 1000))
def test_copies_stay_together(seed: int) -> None:
    contents = np.random.default_rng(seed).integers(0, 250, 400).tolist()
    for spec in (
        SplitSpec(seed=seed, floor=50, val=0.2, holdout=0.2),
        SplitSpec(seed=seed, counts=(150, 80, 70)),
    ):
        splits = make_splits(image_set(contents), spec)
        assert splits.leaked == 0
        assert homes(contents, where(splits, 400)) == {1}


@given(st.integers(0, 1000))
def test_groups_stay_together(seed: int) -> None:
    groups = np.random.default_rng(seed).integers(0, 150, 600).tolist()
    images = image_set(list(range(600)), groups=[f"patient {group}" for group in groups])
    splits = make_splits(images, SplitSpec(seed=seed, floor=0, val=0.2, holdout=0.2))
    assert splits.leaked == 0
    assert homes(groups, where(splits, 600)) == {1}


def homes(units: Sequence[object], splits: list[str]) -> set[int]:
    """Return how many splits the copies of an image, or a group, occur in."""
    pairs = set(zip(units, splits, strict=True))
    return set(Counter(unit for unit, _ in pairs).values())


def test_an_empty_group_is_no_group() -> None:
    spec = SplitSpec(floor=0, val=0.2, holdout=0.2)
    plain = where(make_splits(image_set(list(range(300))), spec), 300)
    grouped = image_set(list(range(300)), groups=[""] * 300)
    assert where(make_splits(grouped, spec), 300) == plain


def test_copies_in_several_groups_stay_in_one_group_only() -> None:
    """A black frame in every film must neither leak nor merge all films into one group."""
    contents = [i if i % 10 else 10**6 for i in range(600)]
    groups = [f"film {i // 10}" for i in range(600)]
    images = image_set(contents, groups=groups)
    splits = make_splits(images, SplitSpec(floor=0, val=0.2, holdout=0.2))
    names = where(splits, 600)
    black = [name for content, name in zip(contents, names, strict=True) if content == 10**6]
    assert splits.leaked == 59
    assert Counter(black)[""] == 59
    us = [slow_u(images.images[i], groups[i], "split", 0) for i in range(0, 600, 10)]
    assert black[int(np.argmin(us))] != ""
    assert min(splits.sizes.values()) > 50


def test_the_data_sets_own_test_split_is_kept_and_its_copies_left_out() -> None:
    contents = [*range(300), *range(280, 380)]
    images = image_set(contents, is_test=[False] * 300 + [True] * 100)
    spec = SplitSpec(floor=0, val=0.2, holdout=0.2)
    splits = make_splits(images, spec)
    names = where(splits, 400)
    assert splits.test.tolist() == list(range(300, 400))
    assert splits.leaked == 20
    assert names[280:300] == [""] * 20
    alone = image_set([*range(280), *range(300, 400)], is_test=[False] * 280 + [True] * 100)
    assert names[:280] == where(make_splits(alone, spec), 380)[:280]


@pytest.mark.parametrize("own_test", [False, True])
def test_the_data_sets_own_val_split_is_kept(own_test: bool) -> None:
    """Test, if drawn, and holdout come from its training images."""
    contents = [*range(1000), *range(990, 1190), *range(2000, 2100)]
    images = image_set(
        contents,
        is_val=[1000 <= i < 1200 for i in range(1300)],
        is_test=[i >= 1200 for i in range(1300)] if own_test else None,
    )
    splits = make_splits(images, SplitSpec(floor=0))
    assert splits.val.tolist() == list(range(1000, 1200))
    assert where(splits, 1300)[990:1000] == [""] * 10
    assert splits.leaked == 10
    pool = 990 if own_test else 1090
    test = 100 if own_test else 218
    holdout = round(0.1 * (pool - (0 if own_test else 218)))
    assert splits.sizes == {
        "train": pool - holdout - (0 if own_test else test),
        "val": 200, "holdout": holdout, "test": test,
    }  # fmt: skip


def test_a_copy_of_a_test_image_leaves_the_own_val_split() -> None:
    contents = [*range(200), *range(200, 300), *range(290, 390)]
    images = image_set(
        contents,
        is_val=[200 <= i < 300 for i in range(400)],
        is_test=[i >= 300 for i in range(400)],
    )
    splits = make_splits(images, SplitSpec(floor=0))
    assert splits.val.tolist() == list(range(200, 290))
    assert splits.leaked == 10


def test_an_own_val_split_of_copies_of_test_is_replaced() -> None:
    contents = [*range(300), *range(500, 600), *range(500, 620)]
    images = image_set(
        contents,
        is_val=[300 <= i < 400 for i in range(520)],
        is_test=[i >= 400 for i in range(520)],
    )
    splits = make_splits(images, SplitSpec(floor=0))
    assert splits.leaked == 100
    assert splits.sizes == {"train": 255, "val": 15, "holdout": 30, "test": 120}
    assert len(splits.warnings) == 1


def test_counts_take_val_from_the_data_sets_own_val_split() -> None:
    images = image_set(list(range(400)), is_val=[i >= 300 for i in range(400)])
    splits = make_splits(images, SplitSpec(counts=(100, 50, 40)))
    assert splits.sizes == {"train": 100, "val": 50, "holdout": 40, "test": 210}
    assert splits.val.min() >= 300
    with pytest.raises(DataError, match=r"missing: {'val': 20}"):
        make_splits(images, SplitSpec(counts=(100, 120, 40)))


@given(st.integers(0, 300), st.integers(4, 12))
def test_few_large_groups_are_spread_over_all_splits(seed: int, patients: int) -> None:
    """Groups larger than val's share still give it one, and train keeps one of each class."""
    groups = [f"patient {i // 50}" for i in range(100 * patients)]
    labels = [i // 50 % 2 for i in range(100 * patients)]
    images = image_set(list(range(len(groups))), groups=groups, labels=labels)
    splits = make_splits(images, SplitSpec(seed=seed))
    assert homes(groups, where(splits, len(groups))) == {1}
    assert splits.leaked == 0
    for counts in class_counts(images, splits).values():
        assert (counts >= 50).all()
    assert splits.sizes["train"] >= splits.sizes["holdout"]
    assert splits.sizes["train"] >= splits.sizes["val"]


@given(st.integers(0, 300))
def test_groups_over_several_classes_give_each_class_about_its_share(seed: int) -> None:
    """300 groups of 1 to 8 images, of 3 classes: within four groups of the share.

    Among 200 seeds the largest difference was 21 images of 450, the mean of the largest 5.5.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(300), rng.integers(1, 9, 300))
    labels = rng.integers(0, 3, len(groups))
    images = image_set(
        list(range(len(groups))), groups=[f"g{g}" for g in groups], labels=labels.tolist(),
        names=("a", "b", "c"),
    )  # fmt: skip
    splits = make_splits(images, SplitSpec(seed=seed, floor=0))
    assert homes(groups.tolist(), where(splits, len(groups))) == {1}
    counts = class_counts(images, splits)
    whole = np.bincount(labels)
    assert (np.abs(counts["test"] - 0.2 * whole) < 32).all()
    rest = whole - counts["test"]
    assert (np.abs(counts["holdout"] - 0.1 * rest) < 32).all()
    assert (np.abs(counts["val"] - 0.05 * rest) < 32).all()


def test_a_group_with_an_image_in_test_is_left_out() -> None:
    groups = [f"g{i // 4}" for i in range(400)]
    images = image_set(
        list(range(400)), groups=groups, is_test=[i >= 300 or i == 0 for i in range(400)]
    )
    splits = make_splits(images, SplitSpec(floor=0, val=0.2, holdout=0.2))
    assert splits.leaked == 3
    assert where(splits, 400)[:4] == ["test", "", "", ""]


@given(st.integers(0, 300), st.integers(0, 10))
def test_floors_add_images_in_order_of_u_within_each_class(floor: int, seed: int) -> None:
    images = image_set(list(range(1000)))
    splits = make_splits(images, SplitSpec(seed=seed, floor=floor))
    assert splits.sizes["holdout"] == max(80, min(floor, 160))
    assert splits.sizes["val"] == max(40, min(floor, 160))
    unbound = make_splits(images, SplitSpec(seed=seed, floor=0))
    assert np.array_equal(splits.test, unbound.test)
    assert set(unbound.holdout) <= set(splits.holdout)
    u = np.array([slow_u(image, "", "split", seed) for image in images.images])
    for k in range(2):
        holdout, val, train = (
            u[rows[images.labels[rows] == k]] for rows in (splits.holdout, splits.val, splits.train)
        )
        assert holdout.max() < val.min()
        assert val.max() < train.min()


def test_floors_keep_copies_together_and_stay_below_their_cap() -> None:
    contents = [i // 30 for i in range(900)]  # 30 copies each
    images = image_set(contents, is_test=[i >= 800 for i in range(900)])
    splits = make_splits(images, SplitSpec(floor=400))
    rest = 900 - 100 - splits.leaked
    for name in ("val", "holdout"):
        assert splits.sizes[name] % 30 == 0
        assert 0.2 * rest - 30 < splits.sizes[name] <= 0.2 * rest


def test_digits_have_exact_counts() -> None:
    digits = load_dataset(DatasetSpec())
    splits = make_splits(digits, SplitSpec(counts=(400, 400, 400)))
    assert splits.sizes == {"train": 400, "val": 400, "holdout": 400, "test": 597}
    assert splits.leaked == 0
    whole = np.bincount(digits.labels)
    for name, counts in class_counts(digits, splits).items():
        assert (np.abs(counts - splits.sizes[name] / 1797 * whole) < 3).all()
        if name in ("holdout", "val", "train"):
            assert (np.abs(counts - 400 / 1797 * whole) < 1).all()


def test_digits_have_the_same_splits_at_every_size() -> None:
    spec = SplitSpec(counts=(400, 400, 400))
    first, second = (
        make_splits(load_dataset(DatasetSpec(image_size=size)), spec) for size in (8, 24)
    )
    assert first.split_id == second.split_id
    assert where(first, 1797) == where(second, 1797)


def test_counts_skip_copies_that_do_not_fit() -> None:
    contents = [*[i // 7 for i in range(210)], *range(1000, 1200)]
    splits = make_splits(image_set(contents), SplitSpec(counts=(100, 50, 40)))
    assert splits.sizes == {"train": 100, "val": 50, "holdout": 40, "test": 220}


def test_counts_leave_other_images_unused_beside_a_test_split() -> None:
    images = image_set(list(range(400)), is_test=[i >= 300 for i in range(400)])
    splits = make_splits(images, SplitSpec(counts=(100, 50, 40)))
    assert splits.sizes == {"train": 100, "val": 50, "holdout": 40, "test": 100}
    assert splits.test.tolist() == list(range(300, 400))


@pytest.mark.parametrize(
    ("contents", "counts", "missing"),
    [
        (list(range(100)), (60, 30, 20), r"only 100 .*\(100 distinct.*'train': 10"),
        ([0] * 100, (60, 30, 20), r"only 100 .*\(1 distinct"),
    ],
)
def test_counts_that_cannot_be_met_are_refused(
    contents: list[int], counts: tuple[int, int, int], missing: str
) -> None:
    with pytest.raises(DataError, match=f"counts asks for 110 images .*{missing}"):
        make_splits(image_set(contents), SplitSpec(counts=counts))


def test_a_rare_class_is_named_in_a_warning() -> None:
    splits = make_splits(uneven([996, 4]), SplitSpec(floor=0))
    assert "1 of 2 classes has fewer than 5 examples in train: class 1 (4)" in splits.warnings
    assert "1 of 2 classes has no example in val: class 1" in splits.warnings
    assert make_splits(uneven([500, 500]), SplitSpec()).warnings == ()
    images = image_set(list(range(1000)), names=("a", "b", "c"))
    warnings = make_splits(images, SplitSpec()).warnings
    assert [warning.endswith((": c", ": c (0)")) for warning in warnings] == [True] * 4
    images = image_set(list(range(1000)), labels=[0] * 500 + [1] * 500,
                       is_test=[i >= 990 for i in range(1000)])  # fmt: skip
    assert make_splits(images, SplitSpec()).warnings == (
        "1 of 2 classes has no example in test: a",
    )


def test_many_rare_classes_are_counted_and_the_rarest_named() -> None:
    """Classes of one image to twelve beside a large one; single images are for training."""
    images = uneven([*range(1, 13), 500])
    splits = make_splits(images, SplitSpec(floor=0, test=0.01, holdout=0.01, val=0.01))
    assert (class_counts(images, splits)["train"] >= 1).all()
    (val,) = (warning for warning in splits.warnings if " in val: " in warning)
    assert val.startswith("11 of 13 classes have no example in val: class 0, class 1, ")
    assert val.endswith("class 9 and 1 more")


@given(st.lists(st.integers(1, 4), min_size=2, max_size=30), st.integers(0, 100))
def test_sets_of_rare_classes_are_divided_or_refused(sizes: list[int], seed: int) -> None:
    """They are refused only if a split is empty: classes of one image have none to spare."""
    images = uneven(sizes)
    spare = sum(sizes) - len(sizes)
    try:
        splits = make_splits(images, SplitSpec(seed=seed))
    except DataError:
        assert spare < 6
        return
    assert spare >= 3
    assert min(splits.sizes.values()) >= 1
    assert (class_counts(images, splits)["train"] >= 1).all()
    assert splits.warnings


def test_sets_from_which_nothing_can_be_learnt_are_refused() -> None:
    one = image_set(list(range(100)), labels=[0] * 100)
    with pytest.raises(DataError, match=r"train would have images of 'a' only"):
        make_splits(one, SplitSpec())
    copies = image_set([0] * 50 + [1] * 50, labels=[0] * 50 + [1] * 50)
    with pytest.raises(DataError, match=r"val, holdout, test would be empty: .* \(2 distinct"):
        make_splits(copies, SplitSpec())


def test_the_split_id_depends_on_images_seed_and_fractions() -> None:
    images = image_set(list(range(600)))
    base = make_splits(images, SplitSpec()).split_id
    assert len(base) == 16
    assert make_splits(image_set(list(range(600))), SplitSpec()).split_id == base
    others: list[dict[str, Any]] = [
        {"seed": 1}, {"test": 0.25}, {"holdout": 0.2}, {"val": 0.1}, {"floor": 300},
        {"counts": (100, 100, 100)},
    ]  # fmt: skip
    ids = {make_splits(images, SplitSpec(**values)).split_id for values in others}
    ids.add(make_splits(image_set(list(range(1, 601))), SplitSpec()).split_id)
    assert len(ids - {base}) == len(others) + 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"test": 0.0}, "test .* between 0 and 1, got 0.0"),
        ({"val": 1.5}, "val .* between 0 and 1, got 1.5"),
        ({"holdout": float("nan")}, "holdout .* between 0 and 1, got nan"),
        ({"holdout": 0.6, "val": 0.4}, r"less than 1, got 0.6 \+ 0.4"),
        ({"floor": -1}, "floor .* at least 0, got -1"),
        ({"counts": (400, 0, 400)}, r"counts .* at least 1 each, got \[400, 0, 400\]"),
    ],
)
def test_impossible_fractions_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        SplitSpec(**values)


def test_the_splits_of_digits_are_golden() -> None:
    """Made by `make_splits(load_dataset(DatasetSpec()), SplitSpec(counts=(400, 400, 400)))`."""
    splits = make_splits(load_dataset(DatasetSpec()), SplitSpec(counts=(400, 400, 400)))
    assert splits.split_id == "fd846655379f89a7"
    digest = hashlib.sha256(b"".join(getattr(splits, name).tobytes() for name in SPLITS))
    assert digest.hexdigest()[:16] == "bf064712c0c4a704"


def test_many_classes_of_many_images_are_split() -> None:
    """A loop over 60,000 images and 200 classes would exceed the suite's time limit."""
    labels = [i % 200 for i in range(60_000)]
    images = image_set(list(range(60_000)), labels=labels, names=tuple(map(str, range(200))))
    splits = make_splits(images, SplitSpec(val=0.1))
    assert sum(splits.sizes.values()) == 60_000
