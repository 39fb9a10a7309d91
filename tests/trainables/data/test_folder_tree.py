"""Folders are listed as far as they can be, and the rest is named."""

from pathlib import Path

import pytest

from common.errors import DataError
from tests.trainables.data.samples import forbid_listing, write_images
from trainables.data.folder_tree import image_files, list_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_images(tmp_path, ["a/1.png", "a/b/2.png", "a/.git/3.png", "c/4.png"])
    return tmp_path


def unreadable(paths: list[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Return the images below some paths, and the message of each path that was named."""
    messages: dict[Path, str] = {}

    def add(path: Path, error: DataError) -> None:
        assert path not in messages, "each path is named once"
        messages[path] = str(error)

    return image_files(paths, on_unreadable=add), messages


def test_a_name_that_is_too_long_does_not_stop_the_others(root: Path) -> None:
    long = root / ("x" * 300 + ".png")
    images, messages = unreadable([root / "c", long, root / "a" / "1.png"])
    assert images == [root / "c" / "4.png", root / "a" / "1.png"]
    assert list(messages) == [long]
    assert "File name too long" in messages[long]
    with pytest.raises(DataError, match="File name too long"):
        image_files([root / "c", long])


@pytest.mark.parametrize(
    ("locked", "rest"),
    [
        ("a/b", ["a/1.png", "c/4.png"]),
        ("a", ["c/4.png"]),
        ("c", ["a/1.png", "a/b/2.png"]),
        (".", []),
    ],
)
def test_a_folder_that_cannot_be_listed_is_named_and_the_rest_is_returned(
    root: Path, monkeypatch: pytest.MonkeyPatch, locked: str, rest: list[str]
) -> None:
    forbid_listing(monkeypatch, root / locked)
    images, messages = unreadable([root])
    assert images == [root / name for name in rest]
    assert list(messages) == [root / locked]
    assert "cannot be listed: Permission denied" in messages[root / locked]
    with pytest.raises(DataError, match="cannot be listed"):
        image_files([root])


def test_a_hidden_folder_that_cannot_be_listed_does_not_matter(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_listing(monkeypatch, root / "a" / ".git")
    images, messages = unreadable([root])
    assert (len(images), messages) == (3, {})


def test_a_link_to_itself_is_named_and_the_rest_is_returned(root: Path) -> None:
    loop = root / "a" / "loop.png"
    loop.symlink_to(loop)
    (root / "a" / ".loop").symlink_to(root / "a" / ".loop")
    images, messages = unreadable([root])
    assert len(images) == 3
    assert list(messages) == [loop]


def test_a_data_set_needs_all_its_folders(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes that are left out without notice would change the data set."""
    forbid_listing(monkeypatch, root / "a" / "b")
    with pytest.raises(DataError, match="cannot be listed: Permission denied; check"):
        list_folder(str(root))
