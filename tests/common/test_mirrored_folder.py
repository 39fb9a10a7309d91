"""A local copy of parts of a folder on another file system."""

import os
from pathlib import Path

import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from common.mirrored_folder import MirroredFolder


@pytest.fixture
def there(tmp_path: Path) -> Path:
    folder = tmp_path / "there"
    for name in ("selection.json", "trials/t0/val.npy", "trials/t0/deep/a", "trials/t1/val.npy"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def mirror(there: Path, tmp_path: Path) -> MirroredFolder:
    filesystem = SubTreeFileSystem(str(there), LocalFileSystem())
    return MirroredFolder(filesystem, "", tmp_path / "here")


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_only_the_named_files_and_folders_are_pulled(there: Path, tmp_path: Path) -> None:
    mirror(there, tmp_path).pull(["selection.json", "trials/t0", "student"])
    assert set(files(tmp_path / "here")) == {
        "selection.json",
        "trials/t0/val.npy",
        "trials/t0/deep/a",
    }


def test_what_is_written_here_arrives_there_and_nothing_else_changes(
    there: Path, tmp_path: Path
) -> None:
    copy, here = mirror(there, tmp_path), tmp_path / "here"
    copy.pull(["trials/t0"])
    (here / "trials/t0/deep/a").unlink()
    (here / "trials/t0/new").write_text("new")
    (here / "trials/t2").mkdir()
    (here / "trials/t2/val.npy").write_text("not pushed")
    (there / "trials/t0/val.npy").write_text("changed there meanwhile")
    copy.push(["trials/t0"])
    assert files(there) == {
        "selection.json": "selection.json",
        "trials/t0/val.npy": "changed there meanwhile",
        "trials/t0/new": "new",
        "trials/t1/val.npy": "trials/t1/val.npy",
    }


def test_the_file_that_was_written_last_arrives_last(there: Path, tmp_path: Path) -> None:
    copy, here = mirror(there, tmp_path), tmp_path / "here"
    order = ["student/z", "student/a", "student/card.json", "student/b/c"]
    for second, name in enumerate(order):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(name)
        os.utime(here / name, (second, second))
    copy.push(["student"])
    arrived = sorted(order, key=lambda name: (there / name).stat().st_mtime_ns)
    assert arrived == order
