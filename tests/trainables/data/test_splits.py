"""Splits depend only on the content of each image, and nothing leaks between them."""

import hashlib
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chisquare, kstest

from common.errors import DataError, SpecError
from common.seeds import derive_seed
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_set import ImageSet
from trainables.data.splits import SPLITS, Splits, SplitSpec, make_splits

NAMES = ("a", "b")


def image_set(
    contents: list[int],
    *,
    labels: list[int] | None = None,
    is_test: list[bool] | None = None,
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
    unit = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
    if group:
        unit = hashlib.blake2b(group.encode(), digest_size=16, person=b"group").digest()
    key = derive_seed(seed, "splits", stream).to_bytes(8, "big")
    digest = hashlib.blake2b(unit, digest_size=8, key=key).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def slow_splits(images: ImageSet, spec: SplitSpec) -> list[str]:
    """Apply the documented rule to one image at a time, without floors."""
    names = []
    for image in images.images:
        u = slow_u(image, "", "split", spec.seed)
        if slow_u(image, "", "test", spec.seed) < spec.test:
            names.append("test")
        elif u < spec.holdout:
            names.append("holdout")
        else:
            names.append("val" if u < spec.holdout + spec.val else "train")
    return names


@given(st.integers(0, 10**6), st.integers(-5, 5))
def test_splits_equal_the_documented_rule_image_by_image(start: int, seed: int) -> None:
    images = image_set(list(range(start, start + 400)))
    spec = SplitSpec(seed=seed, floor=0, val=0.2, holdout=0.3)
    splits = make_splits(images, spec)
    assert where(splits, 400) == slow_splits(images, spec)
    assert splits.leaked == 0
    assert sum(splits.sizes.values()) == 400
    for name in SPLITS:
        indices = getattr(splits, name)
        assert indices.dtype == np.int64
        assert (np.diff(indices) > 0).all()


def test_split_sizes_match_the_fractions() -> None:
    """Use 20,000 images. False alarm: below 1e-5 (exact binomial, three times 3e-6)."""
    n = 20_000
    splits = make_splits(image_set(list(range(n))), SplitSpec())
    rest = n - splits.sizes["test"]
    for name, share, whole in (("test", 0.2, n), ("holdout", 0.1, rest), ("val", 0.05, rest)):
        low, high = binom.interval(1 - 3e-6, whole, share)
        assert low <= splits.sizes[name] <= high


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


@given(st.lists(st.integers(10**6, 10**7), min_size=1, max_size=50), st.integers(0, 3))
def test_a_new_image_moves_no_other_image(new: list[int], seed: int) -> None:
    old = list(range(300))
    spec = SplitSpec(seed=seed, floor=0, val=0.2, holdout=0.2)
    before = where(make_splits(image_set(old), spec), 300)
    order = np.random.default_rng(seed).permutation(300 + len(new))
    mixed = [[*old, *new][i] for i in order]
    after = where(make_splits(image_set(mixed), spec), len(mixed))
    moved = {content: after[i] for i, content in enumerate(mixed)}
    assert [moved[content] for content in old] == before


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


def homes(units: list[int], splits: list[str]) -> set[int]:
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
    no_test = SplitSpec(floor=0, val=0.2, holdout=0.2, test=1e-12)
    assert names[:280] == slow_splits(image_set(list(range(280))), no_test)


def test_a_group_with_an_image_in_test_is_left_out() -> None:
    groups = [f"g{i // 4}" for i in range(400)]
    images = image_set(
        list(range(400)), groups=groups, is_test=[i >= 300 or i == 0 for i in range(400)]
    )
    splits = make_splits(images, SplitSpec(floor=0, val=0.2, holdout=0.2))
    assert splits.leaked == 3
    assert where(splits, 400)[:4] == ["test", "", "", ""]


@given(st.integers(0, 300), st.integers(0, 10))
def test_floors_add_images_in_order_of_u(floor: int, seed: int) -> None:
    images = image_set(list(range(1000)))
    splits = make_splits(images, SplitSpec(seed=seed, floor=floor))
    rest = 1000 - splits.sizes["test"]
    expected = min(floor, int(0.2 * rest))
    unbound = make_splits(images, SplitSpec(seed=seed, floor=0))
    assert splits.sizes["holdout"] == max(unbound.sizes["holdout"], expected)
    assert splits.sizes["val"] >= expected
    assert np.array_equal(splits.test, unbound.test)
    assert set(unbound.holdout) <= set(splits.holdout)
    u = np.array([slow_u(image, "", "split", seed) for image in images.images])
    assert u[splits.holdout].max() < u[splits.val].min()
    assert u[splits.val].max() < u[splits.train].min()


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
    u = [slow_u(image, "", "split", 0) for image in digits.images]
    order = np.argsort(u)
    assert set(splits.holdout) == set(order[:400])
    assert set(splits.val) == set(order[400:800])
    assert set(splits.train) == set(order[800:1200])


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


def test_classes_with_too_few_examples_are_named() -> None:
    labels = [0] * 996 + [1] * 4
    with pytest.raises(
        DataError,
        match=r"1 of 2 classes .*'b' \(\d in \w+, \d+ in all\); add images",
    ):
        make_splits(image_set(list(range(1000)), labels=labels), SplitSpec(floor=0))
    with pytest.raises(DataError, match=r"'c' \(0 in train, 0 in all\); .*leave_out: \[c\]"):
        make_splits(image_set(list(range(1000)), names=("a", "b", "c")), SplitSpec(floor=0))
    images = image_set(list(range(1000)), labels=[0] * 500 + [1] * 496 + [0] * 4,
                       is_test=[i >= 990 for i in range(1000)])  # fmt: skip
    with pytest.raises(DataError, match=r"'a' \(4 in test, "):
        make_splits(images, SplitSpec(floor=0))


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
    assert splits.split_id == "2140dc74a551b8a5"
    digest = hashlib.sha256(b"".join(getattr(splits, name).tobytes() for name in SPLITS))
    assert digest.hexdigest()[:16] == "7e17423ae71750af"


def test_many_rare_classes_are_counted_and_the_rarest_named() -> None:
    names = tuple("abcdefgh")
    labels = [k for k in range(7) for _ in range(k + 1)] + [7] * 500
    images = image_set(list(range(len(labels))), labels=labels, names=names)
    with pytest.raises(DataError) as caught:
        make_splits(images, SplitSpec(floor=0))
    message = str(caught.value)
    assert message.startswith("7 of 8 classes")
    assert "'a' (0 in " in message
    assert "1 in all" in message
    assert "and 2 more" in message
    assert ", ".join(SPLITS) in message, "every split is too small"
    listed = re.search(r"leave_out: \[(.*)\]", message)
    assert listed is not None
    assert listed.group(1).split(", ") == [*"abcde", "…"]


def test_many_classes_of_many_images_are_split() -> None:
    """A loop over 60,000 images and 200 classes would exceed the suite's time limit."""
    labels = [i % 200 for i in range(60_000)]
    images = image_set(list(range(60_000)), labels=labels, names=tuple(map(str, range(200))))
    splits = make_splits(images, SplitSpec(val=0.1))
    assert sum(splits.sizes.values()) == 60_000
