"""Files of labels: columns, ways of naming files, and what is missing."""

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import DataError, SpecError
from tests.trainables.data.samples import png, write_images
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.decoding import Contents
from trainables.data.imagefolder import folder_source
from trainables.data.resizing import Resizing

FILES = ["img/0.png", "img/1.png", "img/2.png", "more/3.png"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder of four images without classes."""
    write_images(tmp_path / "set", FILES)
    return tmp_path / "set"


@pytest.mark.parametrize(
    "text",
    [
        "file,label\nimg/0.png,x\nimg/1.png,y\nimg/2.png,x\nmore/3.png,y\n",
        "id,breed\n0,x\n1,y\n2,x\n3,y\n",
        "A;B\r\n0.png;x\r\n1.png;y\r\n2.png;x\r\n3.png;y\r\n",
        "\ufeffFileName\tlabel\tnotes\n0.png\tx\t\n1.png\ty\n\n2.png\tx\n./more/3.png\ty\n",
        'Image,Class\n"0.png", x\n1.png,y\nimg\\2.png,x\nset/more/3.png,y\n'.replace("set/", ""),
        "file,label\n0,x\n1,y\n2,x\n3,y\n0,x\n",
        "label,photo\nx,0.png\ny,1.png\nx,2.png\ny,3.png\n",
        "photo,label\n0.png,x\n1.png,y\n2.png,x\n3.png,y\n",
        "kind,path\nx,0.png\ny,1.png\nx,2.png\ny,3.png\n",
    ],
)
def test_columns_and_files_are_found_by_name(text: str, root: Path) -> None:
    (root / "labels.csv").write_text(text, encoding="utf-8", newline="")
    source = folder_source(root, labels="labels.csv")
    contents = source.read(Resizing(size=8))
    assert contents.class_names == ("x", "y")
    assert contents.labels.tolist() == [0, 1, 0, 1]
    assert [path.relative_to(root).as_posix() for path in source.files] == FILES
    assert source.notes == ()
    assert (contents.is_test, contents.is_val, contents.groups) == (None, None, None)


def test_splits_and_groups_are_read_and_unlisted_images_counted(root: Path, cache: Path) -> None:
    write_images(root, ["test/9.png", "test/8.png"])
    rows = "0,x,Training,p\n1,y,train,q\n2,x,valid,\n3,y,test,p\n"
    (root / "labels.csv").write_text(f"file,label,split,group\n{rows}")
    source = folder_source(root, labels="labels.csv")
    contents = source.read(Resizing(size=8))
    assert contents.groups == ("p", "q", "", "p")
    assert contents.is_test is not None
    assert contents.is_test.tolist() == [False, False, False, True]
    assert contents.is_val is not None
    assert contents.is_val.tolist() == [False, False, True, False]
    assert [(n.topic, n.count, n.examples) for n in source.notes] == [
        ("unlisted", 2, ("test/8.png", "test/9.png"))
    ]
    spec = DatasetSpec(name="images", path=str(root), labels="labels.csv", leave_out=())
    (root / "labels.csv").write_text("file,label\n0,x\n1,y\n2,x\n3,y\n")
    assert load_dataset(spec, cache=cache).labels.tolist() == [0, 1, 0, 1]
    (root / "labels.csv").write_text("file,label\n0,x\n1,y\n2,y\n3,y\n")
    images = load_dataset(spec, cache=cache)
    assert np.bincount(images.labels).tolist() == [1, 3]
    assert [note.topic for note in images.notes] == ["unlisted"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\n0,x\n9,y\n8,y\n", r"2 of 3 images listed in .* 9, 8; add"),
        ("file,label\n0,x\n1,\n", "1 rows have no label: line 3"),
        ("file,label\n,x\n1,y\n", "1 rows have no file: line 2"),
        ("file,label\n0,x\n1,y\n0,y\n", "0 has different entries in lines 2 and 4"),
        ("file,label\n0,x\n1,y\n0.png,x\n", "lines 2 and 4 both mean img/0.png"),
        ("a,b,c\n0,x,1\n", "no column file .* a, b, c"),
        ("file,x,y\n0,x,1\n", "no column label"),
        ("file,label\n", "no rows"),
        ("", "no rows"),
        ("file,label,split\n0,x,train\n1,y,other\n", "1 rows have a split other than"),
        ('file,label\n"0,x\n', "not a CSV file"),
    ],
)
def test_unusable_files_are_refused(text: str, message: str, root: Path) -> None:
    (root / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        folder_source(root, labels="labels.csv")
    assert "\n" not in str(caught.value)


def test_names_that_may_mean_two_files_are_refused(root: Path) -> None:
    (root / "more" / "0.png").write_bytes(png(7))
    (root / "labels.csv").write_text("file,label\n0,x\n1,y\n")
    with pytest.raises(DataError, match=r"line 2: 0 may be img/0\.png or more/0\.png"):
        folder_source(root, labels="labels.csv")


def test_labels_need_a_folder(cache: Path) -> None:
    with pytest.raises(SpecError, match="labels needs a data set of files"):
        load_dataset(DatasetSpec(labels="labels.csv"), cache=cache)


@pytest.mark.parametrize("header", ["file,label,Usage", "file,label,data set", "file,label,where"])
def test_a_column_with_names_of_splits_divides_the_images(header: str, root: Path) -> None:
    rows = "0,x,Training\n1,y,train\n2,x,Testing\n3,y,valid\n"
    (root / "labels.csv").write_text(f"{header}\n{rows}")
    contents = folder_source(root, labels="labels.csv").read(Resizing(size=8))
    assert contents.is_test is not None
    assert contents.is_val is not None
    assert contents.is_test.tolist() == [False, False, True, False]
    assert contents.is_val.tolist() == [False, False, False, True]


def labelled(root: Path, text: str, **options: Any) -> Contents:
    (root / "labels.csv").write_text(text)
    return folder_source(root, labels="labels.csv", **options).read(Resizing(size=8))


def test_columns_that_contradict_each_other_are_refused(root: Path) -> None:
    for header in ("file,label,class", "file,label,label"):
        with pytest.raises(DataError, match="several columns that may be the label"):
            labelled(root, f"{header}\n0,x,a\n1,y,a\n2,x,b\n3,y,b\n")
    rows = "0,x,train,test\n1,y,train,train\n2,x,test,test\n3,y,test,test\n"
    with pytest.raises(DataError, match="the columns split and phase give images different"):
        labelled(root, f"file,label,split,phase\n{rows}")


@pytest.mark.parametrize("header", ["file,label,class_name", "file,target,category"])
def test_a_class_may_be_given_by_number_and_by_name(header: str, root: Path) -> None:
    contents = labelled(root, f"{header}\n0,0,cat\n1,1,dog\n2,0,cat\n3,1,dog\n")
    assert contents.labels.tolist() == [0, 1, 0, 1]


def test_columns_of_other_things_are_no_splits(root: Path) -> None:
    """Though their names may be those of splits."""
    for header in ("file,label,usage", "file,label,set", "file,label,partition"):
        contents = labelled(root, f"{header}\n0,x,A\n1,y,B\n2,x,A\n3,y,B\n")
        assert contents.is_test is None
    rows = "0,x,A,train\n1,y,B,train\n2,x,A,test\n3,y,B,test\n"
    contents = labelled(root, f"file,label,set,phase\n{rows}")
    assert contents.is_test is not None
    assert contents.is_test.tolist() == [False, False, True, True]


def test_the_option_finds_the_column_of_splits_or_refuses(root: Path) -> None:
    text = "file,label,fold\n0,x,A\n1,y,A\n2,x,B\n3,y,B\n"
    contents = labelled(root, text, splits={"train": "A", "test": "B"})
    assert contents.is_test is not None
    assert contents.is_test.tolist() == [False, False, True, True]
    with pytest.raises(DataError, match=r"no column of .* has the values A, C"):
        labelled(root, text, splits={"train": "A", "test": "C"})


def test_names_in_other_encodings_are_read_or_refused(root: Path) -> None:
    text = "file,label\n0,pêche\n1,pèche\n2,pêche\n3,pèche\n"
    for encoding in ("utf-8", "utf-16", "cp1252"):
        (root / "labels.csv").write_bytes(text.encode(encoding))
        contents = folder_source(root, labels="labels.csv").read(Resizing(size=8))
        assert contents.class_names == ("pèche", "pêche")
    (root / "labels.csv").write_bytes("file,label\n0,Ť\n1,Ź\n2,Ť\n3,Ź\n".encode("cp1250"))
    with pytest.raises(DataError, match=r"neither UTF-8 nor Windows-1252 .*save it as UTF-8"):
        folder_source(root, labels="labels.csv")


def test_file_names_may_differ_in_the_form_of_their_accents(tmp_path: Path) -> None:
    """macOS stores names decomposed."""
    names = [unicodedata.normalize("NFD", f"é/ü{i}.png") for i in range(2)]
    write_images(tmp_path, names)
    rows = "".join(unicodedata.normalize("NFC", f"é/ü{i}.png,{'xy'[i]}\n") for i in range(2))
    (tmp_path / "labels.csv").write_text(f"file,label\n{rows}", encoding="utf-8")
    contents = folder_source(tmp_path, labels="labels.csv").read(Resizing(size=8))
    assert contents.labels.tolist() == [0, 1]


def test_listed_images_in_formats_not_read_here_are_named_with_the_remedy(root: Path) -> None:
    (root / "img" / "9.jxl").write_bytes(b"...")
    rows = "0,x\n1,y\n2,x\n3,y\n9.jxl,x\n"
    (root / "labels.csv").write_text(f"file,label\n{rows}")
    with pytest.raises(DataError, match=r"1 image listed in .* \(1 \.jxl; convert them"):
        folder_source(root, labels="labels.csv")
