"""Data sets from user functions."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError, SpecError
from tests.docs import ROOT
from trainables.data.dataset import DatasetSpec, load_dataset, resolve_dataset
from trainables.data.image_set import ImageSet
from trainables.data.pixels import resize_image
from trainables.data.resizing import ResizeRequest
from trainables.data.user_function import images_from_function


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Return a list whose last element `mydata:load` will return."""
    answers: list[Any] = []

    def load(*, path: str | None, image_size: int | None) -> Any:
        calls.append((path, image_size))
        return answers[-1]

    calls: list[Any] = []
    module: Any = type(sys)("mydata")
    module.load, module.calls, module.number = load, calls, 3
    module.__file__ = "mydata.py"
    module.narrow = lambda path: path
    monkeypatch.setitem(sys.modules, "mydata", module)
    monkeypatch.chdir(tmp_path)
    return answers


def arrays(height: int = 8, width: int = 8) -> tuple[np.ndarray, list[int], list[str]]:
    images = np.random.default_rng(0).integers(0, 256, (6, height, width, 3), dtype=np.uint8)
    return images, [0, 1, 0, 1, 0, 1], ["cat", "dog"]


def test_arrays_become_an_image_set(answer: list[Any]) -> None:
    array, labels, names = arrays()
    answer.append((array, labels, names, [False] * 5 + [True], ["p", "p", "", "q", "q", "q"]))
    images = images_from_function("mydata:load", "where", ResizeRequest(size=None))
    assert sys.modules["mydata"].calls == [("where", None)]
    assert np.array_equal(images.images, array)
    assert (images.name, images.class_names) == ("mydata", ("cat", "dog"))
    assert images.labels.dtype == np.int64
    assert images.is_test is not None
    assert images.is_test.tolist() == [False] * 5 + [True]
    assert images.groups == ("p", "p", "", "q", "q", "q")


def test_one_picture_in_two_classes_is_mentioned(answer: list[Any]) -> None:
    array, labels, names = arrays()
    array[1] = array[0]
    answer.append((array, labels, names))
    (note,) = images_from_function("mydata:load", None, ResizeRequest(size=None)).notes
    assert (note.topic, note.count, note.examples) == ("two_classes", 2, ("image 0 = image 1",))


@pytest.mark.parametrize(("image_size", "expected"), [(None, 24), (12, 12)])
def test_images_of_other_sizes_are_resized(
    answer: list[Any], image_size: int | None, expected: int
) -> None:
    answer.append(arrays(24, 31))
    images = images_from_function("mydata:load", None, ResizeRequest(size=image_size))
    assert images.image_size == expected
    assert np.array_equal(
        images.images[2], resize_image(Image.fromarray(answer[0][0][2]), expected)
    )
    assert (images.source_sizes.smallest, images.source_sizes.modes) == ((31, 24), {"RGB": 6})


IMAGES, LABELS, NAMES = arrays()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"expected an ImageSet or a tuple .*, got NoneType"),
        ((IMAGES, LABELS), r"expected an ImageSet or a tuple .*, got tuple of 2"),
        ((IMAGES / 255, LABELS, NAMES), r"uint8 \[N, H, W, 3\], got float64 \[6, 8, 8, 3\]"),
        ((IMAGES[..., 0], LABELS, NAMES), r"uint8 \[N, H, W, 3\], got uint8 \[6, 8, 8\]"),
        ((IMAGES, [0.5] * 6, NAMES), "labels must be integers, got float64"),
        ((IMAGES, LABELS[:5], NAMES), r"labels must be int64 \[6\], got int64 \[5\]"),
        ((IMAGES, [0, 1, 0, 1, 0, 2], NAMES), r"labels must lie in 0 … 1, got 2"),
        ((IMAGES, LABELS, NAMES, [0] * 6), r"is_test must be bool \[6\]"),
        ((IMAGES, LABELS, NAMES, None, ["p"]), "groups .* got 1 for 6"),
    ],
)
def test_wrong_results_are_refused(answer: list[Any], returned: Any, message: str) -> None:
    answer.append(returned)
    with pytest.raises(DataError, match=rf"dataset 'mydata:load': .*{message}"):
        images_from_function("mydata:load", None, ResizeRequest(size=None))


def test_an_image_set_is_returned_unchanged(answer: list[Any]) -> None:
    images = ImageSet(name="x", images=IMAGES, labels=np.array(LABELS), class_names=("cat", "dog"))
    answer.append(images)
    assert images_from_function("mydata:load", None, ResizeRequest(size=8)) is images
    with pytest.raises(DataError, match=r"ImageSet of 8 px, .*image_size 9"):
        images_from_function("mydata:load", None, ResizeRequest(size=9))


def test_functions_that_cannot_be_called_are_refused(answer: list[Any]) -> None:
    with pytest.raises(SpecError, match=r"dataset: name: .*mydata.* has no 'lead'"):
        images_from_function("mydata:lead", None, ResizeRequest(size=None))
    with pytest.raises(SpecError, match="no module 'yourdata'"):
        images_from_function("yourdata:load", None, ResizeRequest(size=None))
    with pytest.raises(DataError, match=r"dataset 'mydata:number' must be a function, got 3"):
        images_from_function("mydata:number", None, ResizeRequest(size=None))
    with pytest.raises(DataError, match=r"dataset 'mydata:narrow' failed: TypeError: .*image_size"):
        images_from_function("mydata:narrow", None, ResizeRequest(size=None))


def test_a_worker_maps_the_images_that_the_driver_loaded(answer: list[Any], tmp_path: Path) -> None:
    answer.append(arrays())
    spec = DatasetSpec(name="mydata:load")
    assert resolve_dataset(spec) == spec
    first = load_dataset(spec, cache=tmp_path)
    assert isinstance(first.images.base, np.memmap)
    again = load_dataset(spec, cache=tmp_path, fingerprint=first.fingerprint)
    assert again.fingerprint == first.fingerprint
    assert len(sys.modules["mydata"].calls) == 1
    load_dataset(spec, cache=tmp_path, fingerprint="sha256:other")
    assert len(sys.modules["mydata"].calls) == 2


MODULE = """
import numpy as np

def load(path, image_size):
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
    return images, np.arange(9) % 3, ["a", "b", "c"]
"""

CODE = """
from search.space.sweep_files import spec_from_mapping
from trainables.data.dataset import load_dataset
spec = spec_from_mapping({"name": "x", "dataset": {"name": "mine.data:load"}})
images = load_dataset(spec.dataset)
import analysis, search
print(len(images), len(images.class_names), analysis.__file__, search.__file__)
"""


@pytest.mark.slow
def test_packages_named_like_quorums_do_not_shadow_them(tmp_path: Path) -> None:
    """Modules of the current folder are importable but never replace Quorum's."""
    for name, text in (("mine/data.py", MODULE), ("analysis/__init__.py", "1 / 0"),
                       ("search.py", "1 / 0"), ("trainables.py", "1 / 0")):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "QUORUM_CACHE": str(tmp_path / "cache")}
    result = subprocess.run(
        [sys.executable, "-P", "-c", CODE],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    count, classes, *places = result.stdout.split()
    assert (count, classes) == ("9", "3")
    assert places == [str(ROOT / "analysis" / "__init__.py"), str(ROOT / "search" / "__init__.py")]
