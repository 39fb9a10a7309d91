"""Nothing in a folder is lost without a note: every file is an image of a class, or is counted."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.errors import DataError
from tests.trainables.data.samples import png, write_images
from trainables.data.decoding import Contents, Source
from trainables.data.imagefolder import folder_source
from trainables.data.resizing import Resizing

PAIR = ("a", "b")


def write_classes(root: Path, *folders: str, each: int = 1) -> None:
    """Write `each` images of two classes into each folder."""
    for folder in folders:
        write_images(root / folder, [f"{name}/{i}.png" for name in PAIR for i in range(each)])


def counts(source: Source) -> dict[str, int]:
    """Return the number of images in each own split."""
    contents: Contents = source.read(Resizing(size=8))
    in_split = {
        name: np.zeros(len(contents.labels), np.bool_) if own is None else own
        for name, own in (("val", contents.is_val), ("test", contents.is_test))
    }
    rest = ~in_split["val"] & ~in_split["test"]
    return {"train": int(rest.sum()), **{name: int(own.sum()) for name, own in in_split.items()}}


def notes_of(source: Source) -> dict[str, int]:
    return {note.topic: note.count for note in source.notes}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("Train", None, "Test"), ("Training", None, "Testing"), ("train_set", "valid", "test_set"),
     ("train", "dev", "eval"), ("TRAIN", "VAL", "TEST"), ("seg_train", None, "seg_test"),
     ("train2017", "val2017", None), ("trainset", "Validation", "testset"),
     ("trainval", None, "test"), ("train_val", None, "test"), ("TrainVal", "val", "test"),
     ("seg_train/seg_train", None, "seg_test/seg_test"), ("train/train", "val", None)],
)  # fmt: skip
def test_split_folders_under_usual_names(
    train: str, val: str | None, test: str | None, tmp_path: Path
) -> None:
    write_classes(tmp_path, *[name for name in (train, val, test) if name], each=3)
    source = folder_source(tmp_path)
    assert source.read(Resizing(size=8)).class_names == PAIR
    assert counts(source) == {"train": 6, "val": 6 if val else 0, "test": 6 if test else 0}
    tops = {name.partition("/")[0] for name in (train, val, test) if name}
    assert ("splits" in notes_of(source)) == (not tops <= {"train", "val", "test"})


def test_splits_within_classes(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{c}/{s}/{i}.png" for c in "xyz" for s in ("Train", "test")
                            for i in range(2)])  # fmt: skip
    source = folder_source(tmp_path)
    assert source.read(Resizing(size=8)).class_names == ("x", "y", "z")
    assert counts(source) == {"train": 6, "val": 0, "test": 6}


@pytest.mark.parametrize("stray", ["x/loose.png", "y/extra/1.png", "z/1.png"])
def test_images_beside_splits_within_classes_are_refused(stray: str, tmp_path: Path) -> None:
    write_images(tmp_path, [f"{c}/{s}/{i}.png" for c in "xy" for s in ("train", "test")
                            for i in range(2)])  # fmt: skip
    write_images(tmp_path, [stray])
    with pytest.raises(DataError, match=f"x, y have the splits test, train, but 1 image.*{stray}"):
        folder_source(tmp_path)


def test_the_option_says_that_folders_within_classes_are_no_splits(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{c}/{s}/{i}.png" for c in "xy" for s in ("train", "test")
                            for i in range(2)] + ["x/1.png"])  # fmt: skip
    assert counts(folder_source(tmp_path, splits={})) == {"train": 9, "val": 0, "test": 0}


def test_folders_of_splits_within_a_split_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path, "train_val/train", "train_val/val", "test", each=2)
    with pytest.raises(DataError, match="train_val holds the splits train, val; give the folder"):
        folder_source(tmp_path)


def test_trainval_beside_train_is_left_aside(tmp_path: Path) -> None:
    write_classes(tmp_path, "train", "val", "trainval", "test", each=2)
    source = folder_source(tmp_path)
    assert counts(source) == {"train": 4, "val": 4, "test": 4}
    assert notes_of(source) == {"aside": 4}


def test_one_class_may_hold_folders_named_like_splits(tmp_path: Path) -> None:
    write_images(tmp_path, ["rail/train/1.png", "rail/test/2.png", "rail/3.png", "road/4.png"])
    assert counts(folder_source(tmp_path)) == {"train": 4, "val": 0, "test": 0}


@pytest.mark.parametrize(
    ("train", "test"),
    [("treino", "teste"), ("tr", "te"), ("learn", "check"), ("fold1", "fold2"),
     ("entrenamiento", "prueba"), ("labeled", "unlabeled"), ("A", "B")],
)  # fmt: skip
def test_folders_that_hold_the_same_folders_are_refused(
    train: str, test: str, tmp_path: Path
) -> None:
    """They may be splits in any language; the option tells, also that they are classes."""
    write_classes(tmp_path, train, test, each=2)
    with pytest.raises(DataError, match=r"hold folders of the same names.*splits: \{\}"):
        folder_source(tmp_path)
    source = folder_source(tmp_path, splits={"train": train, "test": test})
    assert counts(source) == {"train": 4, "val": 0, "test": 4}
    classes = folder_source(tmp_path, splits={}).read(Resizing(size=8)).class_names
    assert set(classes) == {train, test}


@pytest.mark.parametrize(
    "names",
    [["cat/day/1.png", "dog/night/1.png"], ["cat/images/1.png", "dog/images/1.png"],
     ["cat/images/1.png", "cat/photos/1.png", "dog/images/1.png", "dog/photos/1.png"],
     ["cat/x/1.png", "cat/y/1.png", "dog/x/1.png", "dog/y/1.png", "cow/1.png"],
     [f"c{i}/{side}/1.png" for i in range(20) for side in ("front", "back")]],
)  # fmt: skip
def test_classes_divided_into_folders_are_classes(names: list[str], tmp_path: Path) -> None:
    write_images(tmp_path, names)
    classes = folder_source(tmp_path).read(Resizing(size=8)).class_names
    assert set(classes) == {name.partition("/")[0] for name in names}


def test_a_split_without_images_is_noted_or_refused(tmp_path: Path) -> None:
    write_classes(tmp_path, "train", each=3)
    for name in PAIR:
        (tmp_path / "test" / name).mkdir(parents=True)
    source = folder_source(tmp_path)
    assert notes_of(source) == {"empty_split": 1}
    assert counts(source)["test"] == 0
    (tmp_path / "test/a/1.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 12)
    with pytest.raises(DataError, match=r"test has no image that can be read \(1 \.heic; pip"):
        folder_source(tmp_path)
    assert counts(folder_source(tmp_path, splits={"train": "train"}))["test"] == 0


@pytest.mark.parametrize("name", ["1.npy", "1.mp4", "scan.pdf", ".1.png", "sub/1.npy"])
def test_a_folder_without_images_among_the_classes_is_named(name: str, tmp_path: Path) -> None:
    write_classes(tmp_path, ".", each=2)
    path = tmp_path / "c" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no image")
    (own,) = [note for note in folder_source(tmp_path).notes if note.topic == "no_class"]
    assert (own.count, own.examples) == (1, ("c",))
    assert "c (1 " in own.text


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    write_classes(tmp_path, ".", each=2)
    os.mkfifo(tmp_path / "a" / "pipe.png")
    os.mkfifo(tmp_path / "a" / "pipe")
    assert counts(folder_source(tmp_path))["train"] == 4
    assert notes_of(folder_source(tmp_path)) == {"other_file": 2}


def test_folders_beside_the_splits_are_counted(tmp_path: Path) -> None:
    write_classes(tmp_path, "train", "test", "extra", each=2)
    write_images(tmp_path, ["extra/loose.png"])
    source = folder_source(tmp_path)
    assert counts(source) == {"train": 4, "val": 0, "test": 4}
    (note,) = source.notes
    assert (note.topic, note.count, note.examples) == ("aside", 5, ("extra/",))


def test_chosen_splits_leave_the_others_out(tmp_path: Path) -> None:
    write_classes(tmp_path, "A", "B", "C", "train", each=2)
    source = folder_source(tmp_path, splits={"train": ("A", "C"), "test": "B"})
    assert counts(source) == {"train": 8, "val": 0, "test": 4}
    assert notes_of(source) == {"splits": 3, "aside": 4}


@pytest.mark.parametrize(
    ("deep", "flat", "named"),
    [
        (["train", "extra"], [], ("train", "extra", "{splits: {train: train}}")),
        (["train", "."], [], ("train", "a, b")),
        (["train", "test", "eval"], [], ("test", "eval", "splits")),
        ([], ["train", "test"], ("train", "test", "labels")),
        (["Train"], ["test1"], ("test1", "labels", "{splits: {train: Train}}")),
        (["val"], [], ("val", "{splits: {train: val}}")),
        (["test"], [], ("test",)),
    ],
)
def test_ambiguous_layouts_name_the_folders_and_the_remedy(
    deep: list[str], flat: list[str], named: tuple[str, ...], tmp_path: Path
) -> None:
    root = tmp_path / "set"
    write_classes(root, *deep)
    write_images(root, [f"{name}/1.png" for name in flat])
    with pytest.raises(DataError) as caught:
        folder_source(root)
    assert [part for part in named if part not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


SUFFIXES = [".jfif", ".jpe", ".tif", ".TIFF", ".avif", ".webp", ".JPG", ".jp2", ".ppm", ".tga",
            ".ico", ".bmp", ".gif", ".qoi", ".pcx", ".apng", ".dds"]  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_that_pillow_reads_is_read(suffix: str, tmp_path: Path) -> None:
    Image.init()
    kind = Image.registered_extensions()[suffix.lower()]
    write_classes(tmp_path, ".", each=2)
    (tmp_path / "c").mkdir()
    Image.new("RGB", (16, 16), (200, 10, 10)).save(tmp_path / "c" / f"x{suffix}", kind)
    contents = folder_source(tmp_path).read(Resizing(size=16))
    assert contents.class_names == ("a", "b", "c")
    batches = list(contents.batches)
    assert not batches[0].broken
    assert np.abs(batches[0].images[-1].astype(int) - [200, 10, 10]).max() <= 6


@pytest.mark.parametrize("name", ["x", "x.data", "x.jpg_large", "x.1", "x.heic"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "AVIF", "BMP"])
def test_an_image_without_a_known_suffix_is_known_by_its_content(
    name: str, kind: str, tmp_path: Path
) -> None:
    write_classes(tmp_path, ".")
    Image.new("RGB", (9, 9), (1, 2, 3)).save(tmp_path / "a" / name, kind)
    assert len(folder_source(tmp_path).read(Resizing(size=8)).labels) == 3


def test_images_in_unsupported_formats_are_counted_with_the_remedy(tmp_path: Path) -> None:
    write_classes(tmp_path, ".")
    (tmp_path / "a" / "x.HEIC").write_bytes(b"anything")
    (tmp_path / "b" / "y").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    (tmp_path / "b" / "z.svg").write_text("<svg/>")
    source = folder_source(tmp_path)
    assert [(n.topic, n.count, n.examples) for n in source.notes] == [
        ("unread_format", 2, ("a/x.HEIC", "b/y")),
        ("unread_format", 1, ("b/z.svg",)),
    ]
    assert "pip install pillow-heif" in source.notes[0].text


PATHS = st.lists(
    st.builds(
        "/".join,
        st.lists(
            st.sampled_from(["a", "b", "Train", "test", "extra", ".hidden", "x y", "é"]),
            max_size=3,
        ).flatmap(
            lambda folders: st.sampled_from(
                ["1.png", "2.JPG", "n.txt", "README", ".DS_Store", "i.heic", "noext"]
            ).map(lambda name: [*folders, name])
        ),
    ),
    min_size=1,
    max_size=12,
    unique=True,
)


@settings(max_examples=150, deadline=None)
@given(PATHS)
def test_every_file_is_read_or_counted(tmp_path_factory: Any, paths: list[str]) -> None:
    """Images and notes account for every file, or the folder is refused in one line."""
    root = tmp_path_factory.mktemp("set")
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        is_image = path.rpartition("/")[2] in ("1.png", "2.JPG", "noext")
        (root / path).write_bytes(png(number) if is_image else b"text")
    try:
        source = folder_source(root)
    except DataError as error:
        message = str(error)
        source = None
    if source is None:
        assert "\n" not in message
        return
    lost = sum(
        note.count
        for note in source.notes
        if note.topic in ("aside", "outside_classes", "unread_format", "other_file", "hidden")
    )
    assert len(source.files) + lost == len(paths)
    kinds = Counter(note.topic for note in source.notes)
    assert max(kinds.values(), default=1) == 1


def test_accents_in_another_encoding_are_different_classes(tmp_path: Path) -> None:
    for i, name in enumerate((b"p\xeache", b"p\xe8che")):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        (folder / "1.png").write_bytes(png(i))
    source = folder_source(tmp_path)
    assert source.read(Resizing(size=8)).class_names == ("pèche", "pêche")
    assert notes_of(source) == {"not_utf8": 2}
