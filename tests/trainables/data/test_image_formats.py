"""The formats that are tried for a file: by its first bytes, by its suffix, or last."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from trainables.data.folder_tree import image_files
from trainables.data.image_formats import WITHOUT_SUFFIX, file_type, quiet_pillow
from trainables.data.pixels import read_image, resize_image

GREY = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)


def mcidas() -> bytes:
    """Return a McIDAS area file, which Pillow cannot write."""
    words = dict.fromkeys(range(1, 65), 0) | {2: 4, 9: 16, 10: 16, 11: 1, 14: 1, 34: 256}
    return struct.pack("!64i", *words.values()) + GREY.tobytes()


def imt() -> bytes:
    """Return an IM Tools file, which Pillow cannot write."""
    return b"width 16\nheight 16\npixel n8\n\x0c" + GREY.tobytes()


def written(kind: str) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(GREY)
    if kind == "DIB":
        image = image.convert("RGB")
    with quiet_pillow():  # it means to drop IM
        image.save(file, kind)
    return file.getvalue()


FILES = {
    "SPIDER": (written("SPIDER"), "a.spi"),
    "IMT": (imt(), "a.imt"),
    "MCIDAS": (mcidas(), "AREA0001"),
}


@pytest.mark.parametrize("kind", WITHOUT_SUFFIX)
@pytest.mark.parametrize("named", [True, False])
def test_a_format_without_a_suffix_is_read_if_the_file_is_named(
    kind: str, named: bool, tmp_path: Path
) -> None:
    content, name = FILES[kind]
    path = tmp_path / (name if named else "picture")
    path.write_bytes(content)
    expected = resize_image(Image.fromarray(GREY), 16)
    if kind == "SPIDER":  # 32-bit floats, which are scaled as other deep grey images
        expected = resize_image(Image.fromarray(GREY).convert("F"), 16)
    assert image_files([path]) == [path]
    assert np.array_equal(read_image(path, 16), expected)


@pytest.mark.parametrize("kind", WITHOUT_SUFFIX)
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tga", "a.heic", "a.svg"])
def test_a_file_with_the_suffix_of_another_format_is_not_tried(
    kind: str, name: str, tmp_path: Path
) -> None:
    """Damaged files of other formats may look like these."""
    path = tmp_path / name
    path.write_bytes(FILES[kind][0])
    with pytest.raises(DataError, match=name):
        read_image(path, 16)


def test_folders_are_searched_without_them(tmp_path: Path) -> None:
    for content, name in FILES.values():
        (tmp_path / name).write_bytes(content)
        assert file_type(str(tmp_path / name)).kind == "other"
    (tmp_path / "b.png").write_bytes(written("PNG"))
    assert image_files([tmp_path]) == [tmp_path / "b.png"]


@pytest.mark.parametrize("kind", ["TGA", "PCX", "DIB", "IM"])
def test_some_formats_are_read_by_their_suffix_only(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(written(kind))
    assert image_files([tmp_path]) == [path]
    assert np.array_equal(read_image(path, 16), resize_image(Image.fromarray(GREY), 16))
    with pytest.raises(DataError, match="picture"):
        read_image(path.rename(tmp_path / "picture"), 16)


@pytest.mark.parametrize("name", ["a.eps", "a.ps", "a", "a.dat"])
def test_eps_is_refused_whatever_its_name(name: str, tmp_path: Path) -> None:
    """Pillow would run Ghostscript on it."""
    path = tmp_path / name
    path.write_bytes(written("EPS"))
    with pytest.raises(DataError, match="cannot identify image"):
        read_image(path, 16)
