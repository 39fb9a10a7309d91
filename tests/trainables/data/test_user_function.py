"""A data set from a function of the user's own."""

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
from trainables.data.image_set import ImageSet
from trainables.data.pixels import resize_image
from trainables.data.sources import DatasetSpec, load_dataset, resolve_dataset
from trainables.data.user_function import own_images


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What `mydata:load` returns: the last element of the list."""
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


def test_arrays_become_a_set(answer: list[Any]) -> None:
    images, labels, names = arrays()
    answer.append((images, labels, names, [False] * 5 + [True], ["p", "p", "", "q", "q", "q"]))
    found = own_images("mydata:load", "where", None)
    assert sys.modules["mydata"].calls == [("where", None)]
    assert np.array_equal(found.images, images)
    assert (found.name, found.class_names) == ("mydata", ("cat", "dog"))
    assert found.labels.dtype == np.int64
    assert found.is_test is not None
    assert found.is_test.tolist() == [False] * 5 + [True]
    assert found.groups == ("p", "p", "", "q", "q", "q")


@pytest.mark.parametrize(("image_size", "expected"), [(None, 24), (12, 12)])
def test_other_sizes_are_resized_by_the_one_rule(
    answer: list[Any], image_size: int | None, expected: int
) -> None:
    answer.append(arrays(24, 31))
    found = own_images("mydata:load", None, image_size)
    assert found.image_size == expected
    assert np.array_equal(found.images[2], resize_image(Image.fromarray(answer[0][0][2]), expected))
    assert (found.originals.smallest, found.originals.modes) == ((31, 24), {"RGB": 6})


IMAGES, LABELS, NAMES = arrays()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"expected an ImageSet or a tuple .*, got NoneType"),
        ((IMAGES, LABELS), r"expected an ImageSet or a tuple .*, got tuple of 2"),
        ((IMAGES / 255, LABELS, NAMES), r"uint8 \[N, H, W, 3\], got float64 \[6, 8, 8, 3\]"),
        ((IMAGES[..., 0], LABELS, NAMES), r"uint8 \[N, H, W, 3\], got uint8 \[6, 8, 8\]"),
        ((IMAGES, [0.5] * 6, NAMES), "labels must be whole numbers, got float64"),
        ((IMAGES, LABELS[:5], NAMES), r"labels must be int64 \[6\], got int64 \[5\]"),
        ((IMAGES, [0, 1, 0, 1, 0, 2], NAMES), r"labels must lie in 0 … 1, got 2"),
        ((IMAGES, LABELS, NAMES, [0] * 6), r"is_test must be bool \[6\]"),
        ((IMAGES, LABELS, NAMES, None, ["p"]), "one entry an image: 1 for 6"),
    ],
)
def test_what_it_returns_is_checked(answer: list[Any], returned: Any, message: str) -> None:
    answer.append(returned)
    with pytest.raises(DataError, match=rf"dataset 'mydata:load': .*{message}"):
        own_images("mydata:load", None, None)


def test_an_image_set_is_taken_as_it_is(answer: list[Any]) -> None:
    images = ImageSet(name="x", images=IMAGES, labels=np.array(LABELS), class_names=("cat", "dog"))
    answer.append(images)
    assert own_images("mydata:load", None, 8) is images
    with pytest.raises(DataError, match="asked for images of 9 px and returned an ImageSet of 8"):
        own_images("mydata:load", None, 9)


def test_what_cannot_be_called_is_named(answer: list[Any]) -> None:
    with pytest.raises(SpecError, match=r"dataset: name: .*mydata.* has no 'lead'"):
        own_images("mydata:lead", None, None)
    with pytest.raises(SpecError, match="no module 'yourdata'"):
        own_images("yourdata:load", None, None)
    with pytest.raises(DataError, match="dataset 'mydata:number' must be a function, it is 3"):
        own_images("mydata:number", None, None)
    with pytest.raises(DataError, match=r"dataset 'mydata:narrow' failed: TypeError: .*image_size"):
        own_images("mydata:narrow", None, None)


def test_a_worker_maps_what_the_driver_loaded(answer: list[Any], tmp_path: Path) -> None:
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
from search.space.spec import spec_from_mapping
from trainables.data.sources import load_dataset
spec = spec_from_mapping({"name": "x", "dataset": {"name": "mine.data:load"}})
images = load_dataset(spec.dataset)
import analysis, search
print(len(images), len(images.class_names), analysis.__file__, search.__file__)
"""


@pytest.mark.slow
def test_from_a_folder_with_an_analysis_and_a_search_of_its_own(tmp_path: Path) -> None:
    """Theirs is importable, and takes the place of none of ours."""
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
