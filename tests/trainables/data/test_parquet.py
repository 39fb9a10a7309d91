"""Parquet files in the Hugging Face layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import DataError
from tests.trainables.data.samples import load, pixels, png, write_images, write_parquet
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.parquet import parquet_source
from trainables.data.resizing import Resizing

CLASS_NAMES = {
    b"huggingface": json.dumps(
        {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    ).encode()
}


@pytest.mark.parametrize("below", ["", "data", "label=3"])
@pytest.mark.parametrize(("image", "raw"), [("img", False), ("image", True)])
@pytest.mark.parametrize("label", ["label", "labels", "fine_label"])
def test_shards_are_read_in_order_with_a_test_split(
    below: str, image: str, raw: bool, label: str, tmp_path: Path, cache: Path
) -> None:
    root = tmp_path / ("label=3" if below == "label=3" else "set")
    folder = root / "data" if below == "data" else root
    for name, seeds, labels in (
        ("train-00000-of-00002", [0, 1, 2, 3], [0, 1, 0, 1]),
        ("train-00001-of-00002", [4, 5], [1, 0]),
        ("test-00000-of-00001", [6, 7], [0, 1]),
    ):
        path = folder / f"{name}.parquet"
        write_parquet(path, seeds, labels, image=image, raw=raw, label=label)
    images = load("parquet", root, cache)
    assert np.array_equal(images.images, np.stack([pixels(i) for i in range(8)]))
    assert images.labels.tolist() == [0, 1, 0, 1, 1, 0, 0, 1]
    assert images.class_names == ("0", "1")
    assert images.is_test is not None
    assert images.is_test.tolist() == [False] * 6 + [True] * 2


def test_a_missing_shard_is_named(tmp_path: Path, cache: Path) -> None:
    """Hugging Face names the parts of a split, in some versions with a hash at the end."""
    for name in ("train-00000-of-00003", "train-00002-of-00003", "test-00000-of-00001-ab12"):
        write_parquet(tmp_path / "set" / f"{name}.parquet", [0, 1], [0, 1])
    message = r"has 2 of 3 parts of train; fetch train-00001-of-00003\.parquet$"
    with pytest.raises(DataError, match=message):
        load("parquet", tmp_path / "set", cache)
    write_parquet(tmp_path / "set" / "train-00001-of-00003.parquet", [2, 3], [0, 1])
    assert len(load("parquet", tmp_path / "set", cache)) == 8


def test_class_names_come_from_the_metadata(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1], [1, 0], metadata=CLASS_NAMES)
    images = load("parquet", tmp_path, cache)
    assert images.class_names == ("cat", "dog")
    assert images.is_test is None
    assert images.groups is None


@pytest.mark.parametrize(
    "metadata",
    [None, {b"huggingface": b"not json"}, {b"huggingface": b'{"info": {"features": {}}}'},
     {b"huggingface": b'{"info": {"features": {"label": {"names": 3}}}}'}, {b"pandas": b"{}"}],
)  # fmt: skip
def test_without_names_in_the_metadata_the_values_are_the_classes(
    metadata: dict[bytes, bytes] | None, tmp_path: Path, cache: Path
) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1, 2], [10, 9, 9], metadata=metadata)
    images = load("parquet", tmp_path, cache)
    assert images.class_names == ("9", "10")
    assert images.labels.tolist() == [1, 0, 0]


def test_labels_may_be_strings(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1, 2], ["dog", "cat", "dog"])
    images = load("parquet", tmp_path, cache)
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [1, 0, 1]


def test_a_group_column_is_read(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1, 2], [0, 1, 0], group=[7, None, 7])
    images = load("parquet", tmp_path, cache)
    assert images.groups == ("7", "", "7")
    assert load("parquet", tmp_path, cache).groups == images.groups


def test_the_size_of_most_images_is_the_default(tmp_path: Path, cache: Path) -> None:
    seeds, sides = [0, 1, 2, 3, 4], [6, 12, 12, 20, 12]
    write_parquet(tmp_path / "train.parquet", seeds, [0, 1, 0, 1, 0], sizes=sides)
    images = load("parquet", tmp_path, cache)
    assert images.image_size == 12
    sizes = images.source_sizes
    assert (sizes.smallest, sizes.largest) == ((6, 6), (20, 20))
    assert np.array_equal(images.images[1], pixels(1, 12))
    assert load("parquet", tmp_path, cache, image_size=10).image_size == 10


def test_validation_shards_are_the_sets_own_val_split(tmp_path: Path, cache: Path) -> None:
    for i, name in enumerate(["train-0", "train-1", "validation-0", "test-0"]):
        write_parquet(tmp_path / f"{name}.parquet", [2 * i, 2 * i + 1], [0, 1])
    images = load("parquet", tmp_path, cache)
    assert np.array_equal(images.images, np.stack([pixels(i) for i in range(8)]))
    assert images.is_test is not None
    assert images.is_test.tolist() == [False] * 6 + [True] * 2
    assert images.is_val is not None
    assert images.is_val.tolist() == [False] * 4 + [True] * 2 + [False] * 2


@pytest.mark.parametrize(
    ("labels", "metadata", "message"),
    [
        ([0, 2], CLASS_NAMES, "label 2 is not a class"),
        ([0, -2], CLASS_NAMES, "label -2 is not a class"),
        ([0, -1], None, r"1 row of 2 has no label \(e\.g\. row 1 has -1\)"),
        ([-1, -1], CLASS_NAMES, "2 rows of 2 have no label"),
        ([0, None], None, r"1 row of 2 has no label \(e\.g\. row 1 has None\)"),
        ([None, None], None, "2 rows of 2 have no label"),
        (["", "a"], None, "1 row of 2 has no label"),
        ([0.5, 1.5], None, "label must be an integer .* got double"),
        ([[0], [1, 2]], None, "label holds list.* several values per image"),
        ([{"a": 0}, {"a": 1}], None, "label holds struct"),
        ([b"a", b"b"], None, "label must be an integer .* got binary"),
        ([1, 1], None, "two or more distinct classes"),
    ],
)
def test_unusable_labels_are_refused(
    labels: list[Any],
    metadata: dict[bytes, bytes] | None,
    message: str,
    tmp_path: Path,
    cache: Path,
) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1], labels, metadata=metadata)
    with pytest.raises(DataError, match=message):
        load("parquet", tmp_path, cache)


CLASS_ORDERS = (["cat", "dog"], ["dog", "cat"], ["cat", "dog", "eel"])


def named(names: list[str]) -> dict[bytes, bytes]:
    """Return the metadata of a ClassLabel."""
    about = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    return {b"huggingface": json.dumps(about).encode()}


@pytest.mark.parametrize("other", ["train-1", "validation-0", "test-0"])
@pytest.mark.parametrize("metadata", [None, named(CLASS_ORDERS[1]), named(CLASS_ORDERS[2])])
def test_files_that_disagree_on_their_classes_are_refused_by_name(
    metadata: dict[bytes, bytes] | None, other: str, tmp_path: Path, cache: Path
) -> None:
    write_parquet(tmp_path / "train-0.parquet", [0, 1], [0, 1], metadata=named(CLASS_ORDERS[0]))
    write_parquet(tmp_path / f"{other}.parquet", [2, 3], [0, 1], metadata=metadata)
    with pytest.raises(DataError, match=rf"train-0\.parquet has \[cat, dog\], {other}\.parquet"):
        load("parquet", tmp_path, cache)


def test_files_with_labels_of_different_types_are_refused_by_name(
    tmp_path: Path, cache: Path
) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1], ["a", "b"])
    write_parquet(tmp_path / "test.parquet", [2, 3], [0, 1])
    with pytest.raises(DataError, match=r"strings in train\.parquet, integers in test\.parquet"):
        load("parquet", tmp_path, cache)


def test_files_may_name_their_columns_differently(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1], [0, 1], group=["p", "q"])
    write_parquet(
        tmp_path / "test.parquet", [2, 3], [1, 0], image="image", label="labels", raw=True
    )
    images = load("parquet", tmp_path, cache)
    assert np.array_equal(images.images, np.stack([pixels(i) for i in range(4)]))
    assert images.labels.tolist() == [0, 1, 1, 0]
    assert images.groups == ("p", "q", "", "")


def test_a_test_file_without_labels_may_be_left_out(tmp_path: Path, cache: Path) -> None:
    write_parquet(tmp_path / "Training.parquet", [0, 1], [0, 1])
    path = tmp_path / "test-00000-of-00001.parquet"
    pq.write_table(pa.table({"img": [png(2), png(3)]}), path)
    fix = r"leave it out: dataset: {splits: {train: Training}}"
    with pytest.raises(DataError, match=rf"test-.* none of the columns label.*{fix}"):
        load("parquet", tmp_path, cache)
    write_parquet(path, [2, 3], [-1, -1])
    with pytest.raises(DataError, match=rf"2 rows of 2 have no label .*{fix}"):
        load("parquet", tmp_path, cache)
    spec = DatasetSpec(name="parquet", path=str(tmp_path), splits={"train": "Training"})
    images = load_dataset(spec, cache=cache)
    assert (len(images), images.is_test) == (2, None)
    topics = [(note.topic, note.count) for note in images.notes]
    assert topics[:2] == [("splits", 1), ("aside", 2)]


def test_files_beside_the_parquet_files_are_counted(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1], [0, 1])
    write_parquet(tmp_path / "test.pq", [2, 3], [0, 1])
    write_images(tmp_path, ["a/1.png", "b/2.png"])
    for name in ("test.arrow", "val.parquet.bak"):
        (tmp_path / name).write_bytes(b"rows")
    source = parquet_source(tmp_path)
    notes = {note.topic: note for note in source.notes}
    assert {topic: note.count for topic, note in notes.items()} == {
        "beside_parquet": 2, "other_file": 2,
    }  # fmt: skip
    assert notes["beside_parquet"].examples == ("a/1.png", "b/2.png")
    contents = source.read(Resizing(size=8))
    assert contents.is_test is not None
    assert contents.is_test.tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([True, False], [1, 0]), (["dog", "cat"], [1, 0]), (["1", "0"], [1, 0])],
)
def test_names_of_the_metadata_hold_for_booleans_and_strings(
    labels: list[Any], expected: list[int], tmp_path: Path
) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1], labels, metadata=CLASS_NAMES)
    contents = parquet_source(tmp_path).read(Resizing(size=8))
    assert (contents.class_names, contents.labels.tolist()) == (("cat", "dog"), expected)


def test_string_labels_that_are_merged_or_look_alike_are_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1, 2, 3], ["Cat", "cat ", "cat", "dog"])
    source = parquet_source(tmp_path)
    assert source.read(Resizing(size=8)).class_names == ("Cat", "cat", "dog")
    assert [note.topic for note in source.notes] == ["merged_names", "similar_names"]


def test_a_column_of_splits_divides_the_rows(tmp_path: Path) -> None:
    def write(splits: list[str]) -> None:
        table = pa.table({
            "img": [png(i) for i in range(4)], "label": [0, 1, 0, 1], "split": splits,
            "patient_id": ["p", "q", "p", "q"],
        })  # fmt: skip
        pq.write_table(table, tmp_path / "data.parquet")

    write(["train", "train", "valid", "Test"])
    contents = parquet_source(tmp_path).read(Resizing(size=8))
    assert contents.is_test is not None
    assert contents.is_val is not None
    assert contents.is_test.tolist() == [False, False, False, True]
    assert contents.is_val.tolist() == [False, False, True, False]
    assert contents.groups == ("p", "q", "p", "q")
    write(["train", "train", "test", "other"])
    with pytest.raises(DataError, match="the column split has other"):
        parquet_source(tmp_path).read(Resizing(size=8))
    (tmp_path / "data.parquet").rename(tmp_path / "train.parquet")
    assert parquet_source(tmp_path).read(Resizing(size=8)).is_test is None, "the file's name counts"
    (tmp_path / "train.parquet").unlink()
    write(["a", "b", "c", "d"])
    assert parquet_source(tmp_path).read(Resizing(size=8)).is_test is None


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (["Training", "Testing"], (2, 0, 2)),
        (["TRAIN", "dev", "eval"], (2, 2, 2)),
        (["train/0000", "test/0000"], (2, 0, 2)),
        (["default/train/0000", "default/validation/0000"], (2, 2, 0)),
        (["train_clean", "train_other", "test_clean"], (4, 0, 2)),
        (["0000", "0001"], (4, 0, 0)),
        (["data/train-00000-of-00001-ab", "data/valid-00000-of-00001"], (2, 2, 0)),
    ],
)
def test_splits_under_usual_names(
    names: list[str], sizes: tuple[int, int, int], tmp_path: Path
) -> None:
    for i, name in enumerate(names):
        write_parquet(tmp_path / f"{name}.parquet", [2 * i, 2 * i + 1], [0, 1])
    contents = parquet_source(tmp_path).read(Resizing(size=8))
    val, test = (
        0 if own is None else int(own.sum()) for own in (contents.is_val, contents.is_test)
    )
    assert (len(contents.labels) - val - test, val, test) == sizes


def test_files_of_no_split_are_counted(tmp_path: Path) -> None:
    for i, name in enumerate(["train", "test", "unsupervised", "old/train"]):
        write_parquet(tmp_path / f"{name}.parquet", [2 * i, 2 * i + 1], [0, 1])
    (note,) = parquet_source(tmp_path).notes
    assert (note.topic, note.count) == ("aside", 4)
    assert set(note.examples) == {"unsupervised.parquet", "old/train.parquet"}


def test_several_sets_in_one_folder_are_refused(tmp_path: Path) -> None:
    for i, name in enumerate(["fine/train", "coarse/train"]):
        write_parquet(tmp_path / f"{name}.parquet", [2 * i, 2 * i + 1], [0, 1])
    with pytest.raises(DataError, match="several sets of Parquet files: coarse, fine"):
        parquet_source(tmp_path)


def test_a_folder_of_images_may_hold_other_parquet_files(tmp_path: Path, cache: Path) -> None:
    write_images(tmp_path, ["a/1.png", "b/2.png"])
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a" / "metadata.parquet")
    images = load("images", tmp_path, cache)
    assert images.class_names == ("a", "b")
    assert [(note.topic, note.count) for note in images.notes] == [("other_file", 1)]


def test_strings_that_are_not_utf8_are_refused(tmp_path: Path, cache: Path) -> None:
    labels = pa.array([b"a", b"\xff"], pa.binary()).view(pa.string())
    table = pa.table({"img": pa.array([png(0), png(1)], pa.binary()), "label": labels})
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"cannot be read: .*utf-8"):
        load("parquet", tmp_path, cache)


def test_unusable_files_are_refused(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(DataError, match=r"no train\*\.parquet in"):
        load("parquet", tmp_path, cache)
    path = tmp_path / "train.parquet"
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"Parquet files in .* cannot be read"):
        load("parquet", tmp_path, cache)
    write_parquet(path, [0, 1], [0, 1], image="picture")
    with pytest.raises(DataError, match="columns img, image; it has picture, label"):
        load("parquet", tmp_path, cache)
    write_parquet(path, [0, 1], [0, 1], label="class")
    with pytest.raises(DataError, match="columns label, labels, fine_label"):
        load("parquet", tmp_path, cache)
    pq.write_table(pa.table({"img": [1, 2], "label": [0, 1]}), path)
    with pytest.raises(DataError, match="'img' must hold encoded images, got int64"):
        load("parquet", tmp_path, cache)
    write_parquet(path, [], [])
    with pytest.raises(DataError, match="have no rows"):
        load("parquet", tmp_path, cache)


def test_unreadable_rows_are_named(tmp_path: Path, cache: Path) -> None:
    data = [png(0), b"", None, png(3), b"text"]
    table = pa.table({"img": pa.array(data, pa.binary()), "label": [0, 1, 0, 1, 0]})
    pq.write_table(table, tmp_path / "train.parquet")
    message = r"3 of 5 images .*: train\.parquet row 1, .* row 2, .* row 4; replace"
    with pytest.raises(DataError, match=message):
        load("parquet", tmp_path, cache)
    pq.write_table(table.slice(1, 2), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="none of 2 images"):
        load("parquet", tmp_path, cache)


def test_a_damaged_page_is_refused(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "train.parquet"
    write_parquet(path, list(range(40)), [0, 1] * 20)
    data = bytearray(path.read_bytes())
    data[50:3000] = bytes(2950)
    path.write_bytes(data)
    with pytest.raises(DataError, match="cannot be read"):
        load("parquet", tmp_path, cache, image_size=8)
