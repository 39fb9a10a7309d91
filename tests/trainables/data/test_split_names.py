"""Names of splits are recognised by words, in any capitals and with the usual additions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError, SpecError
from trainables.data.split_names import (
    FILLERS,
    WORDS,
    Splits,
    check_splits,
    chosen_splits,
    match_splits,
    split_of,
)


@given(
    st.sampled_from(sorted(WORDS)),
    st.sampled_from(["", *FILLERS]),
    st.sampled_from(["", "_", "-", " "]),
    st.sampled_from([str, str.upper, str.title]),
    st.sampled_from(["", "1", "_2017"]),
    st.booleans(),
)
def test_a_word_with_a_filler_in_any_capitals_is_its_split(
    word: str, filler: str, between: str, capitals: type, digits: str, before: bool
) -> None:
    parts = (filler, word) if before else (word, filler)
    assert split_of(capitals(between.join(part for part in parts if part)) + digits) == WORDS[word]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("Train", "train"), ("Training", "train"), ("train_set", "train"), ("trainset", "train"),
        ("TrainingSet", "train"), ("train2017", "train"), ("training-images", "train"),
        ("Testing", "test"), ("TEST", "test"), ("test1", "test"), ("TestSet", "test"),
        ("valid", "val"), ("Validation", "val"), ("dev", "val"), ("val_images", "val"),
        ("trains", None), ("test_tube", None), ("training shoes", None), ("contest", None),
        ("device", None), ("interval", None), ("valley", None), ("train_test", None), ("", None),
        ("data", None), ("cats", None), ("1", None), ("стрейн", None),
    ],
)  # fmt: skip
def test_names_that_do_and_do_not_stand_for_a_split(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_common_addition_is_recognised_where_two_splits_share_it() -> None:
    names = ["seg_train", "seg_test", "seg_pred", "test_tube", "dogs"]
    assert match_splits(names, where="x") == {"seg_train": "train", "seg_test": "test"}
    assert match_splits(["seg_train", "tube_test"], where="x") == {}
    several = {"train1": "train", "train2": "train", "val": "val", "valid": "val"}
    assert match_splits(several, where="x") == several


def test_eval_is_test_unless_there_is_a_test() -> None:
    assert match_splits(["train", "dev", "eval"], where="x")["eval"] == "test"
    with pytest.raises(DataError, match=r"^x has test and eval, .*val: eval"):
        match_splits(["train", "eval", "test"], where="x")


def test_chosen_names_must_exist() -> None:
    splits: Splits = {"train": ("A", "B"), "test": "C"}
    expected = {"A": "train", "B": "train", "C": "test"}
    assert chosen_splits(splits, {"A", "B", "C", "D"}, where="x") == expected
    with pytest.raises(DataError, match="x has no 'B'; it has A, C"):
        chosen_splits(splits, ["A", "C"], where="x")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": "a", "tset": "b"}, "unknown key 'tset'; did you mean 'test'"),
        ({"test": "b"}, "must name the training data"),
        ({"train": "a", "val": ("b", "a")}, "lists 'a' twice"),
    ],
)
def test_impossible_choices_are_refused(splits: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        check_splits(splits)
