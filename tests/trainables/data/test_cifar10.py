"""CIFAR-10: order, sizes, location, and a verified download."""

import functools
import hashlib
import http.server
import pickle
import sys
import tarfile
import threading
import types
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from tests.trainables.data.samples import pixels, write_parquet
from trainables.data.cache import cached_images
from trainables.data.cifar10 import cifar10_source
from trainables.data.dataset import DatasetSpec, load_dataset, resolve_dataset
from trainables.data.decoding import DecodeOptions
from trainables.data.image_set import ImageSet
from trainables.data.pixels import resize_image
from trainables.data.resizing import Resizing


class FakeCifar10:
    """The used part of torchvision's class, with 20 training and 10 test images."""

    url = "http://127.0.0.1/cifar.tar.gz"
    calls = 0

    def __init__(self, root: Path, *, train: bool, download: bool) -> None:
        assert download
        type(self).calls += 1
        folder = Path(root) / "cifar-10-batches-py"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("data_batch_1", "test_batch", "batches.meta", "readme.html"):
            if not (folder / name).exists():
                (folder / name).touch()
        start, count = (0, 20) if train else (100, 10)
        self.data = np.stack([pixels(start + i, 32) for i in range(count)])
        self.targets = [i % 10 for i in range(count)]
        self.classes = [f"class {i}" for i in range(10)]


def load_cifar10(
    root: Path, cache: Path, *, image_size: int = 32, dataset_class: Any = FakeCifar10
) -> ImageSet:
    """Load the data set that `dataset_class` has in `root`."""
    source = cifar10_source(root, dataset_class=dataset_class)
    return cached_images(source, DecodeOptions(resizing=Resizing(size=image_size)), cache=cache)


def test_cifar10_keeps_its_order_and_its_test_split(tmp_path: Path, cache: Path) -> None:
    class Counted(FakeCifar10):
        calls = 0

    images = load_cifar10(tmp_path / "data", cache, dataset_class=Counted)
    assert images.name == "cifar10"
    assert np.array_equal(images.images[:20], np.stack([pixels(i, 32) for i in range(20)]))
    assert images.is_test is not None
    assert images.is_test.tolist() == [False] * 20 + [True] * 10
    assert images.labels.tolist() == [i % 10 for i in range(20)] + list(range(10))
    calls = Counted.calls
    again = load_cifar10(tmp_path / "data", cache, dataset_class=Counted)
    assert Counted.calls == calls  # from the cache
    assert again.fingerprint == images.fingerprint


def test_cifar10_can_be_resized(tmp_path: Path, cache: Path) -> None:
    images = load_cifar10(tmp_path / "data", cache, image_size=16)
    assert np.array_equal(images.images[3], resize_image(Image.fromarray(pixels(3, 32)), 16))
    sizes = images.source_sizes
    assert (sizes.median, sizes.modes) == ((32, 32), {"RGB": 30})


def test_the_data_set_named_cifar10_comes_from_torchvision(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.SimpleNamespace(CIFAR10=FakeCifar10)
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(datasets=module))
    monkeypatch.setenv("QUORUM_DATA", str(tmp_path / "elsewhere"))
    images = load_dataset(DatasetSpec(name="cifar10"), cache=cache)
    assert (tmp_path / "elsewhere" / "cifar-10-batches-py").is_dir()
    assert (images.name, len(images), images.image_size) == ("cifar10", 30, 32)


def test_cifar10_is_looked_for_in_quorum_data_then_in_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either folder may hold another layout, here Parquet."""
    write_parquet(tmp_path / "elsewhere" / "train.parquet", [0, 1], [0, 1])
    monkeypatch.setenv("QUORUM_DATA", str(tmp_path / "elsewhere"))
    resolved = resolve_dataset(DatasetSpec(name="cifar10"))
    assert (resolved.name, resolved.path) == ("parquet", str(tmp_path / "elsewhere"))
    write_parquet(tmp_path / "data" / "train.parquet", [0, 1], [0, 1])
    monkeypatch.delenv("QUORUM_DATA")
    monkeypatch.chdir(tmp_path)
    resolved = resolve_dataset(DatasetSpec(name="cifar10"))
    assert (resolved.name, resolved.path) == ("parquet", "data")


@pytest.mark.parametrize(
    "error", [URLError("no route"), RuntimeError("File not found or corrupted."), OSError("no")]
)
def test_a_failed_download_names_the_host_and_the_fix(error: Exception, tmp_path: Path) -> None:
    class Failing(FakeCifar10):
        def __init__(self, *_: Any, **__: Any) -> None:
            raise error

    message = r"from http://127\.0\.0\.1.*put cifar-10-python.tar.gz .* as --data"
    with pytest.raises(DataError, match=message):
        cifar10_source(tmp_path / "data", dataset_class=Failing)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without logging."""

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.mark.slow
def test_torchvisions_cifar10_is_downloaded_checked_and_read(tmp_path: Path, cache: Path) -> None:
    """Serve the real class an archive of ten images a batch on loopback, with its checksums."""
    from torchvision.datasets import CIFAR10

    source = tmp_path / "server" / "cifar-10-batches-py"
    source.mkdir(parents=True)

    def write(name: str, value: dict[str, Any]) -> str:
        data = pickle.dumps(value)
        (source / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(number: int) -> dict[str, Any]:
        images = np.stack([pixels(10 * number + i, 32) for i in range(10)])
        return {"data": images.transpose(0, 3, 1, 2).reshape(10, -1), "labels": [*range(10)]}

    names = [f"data_batch_{i}" for i in range(1, 6)]
    parts = [[name, write(name, batch(i))] for i, name in enumerate(names)]
    labels = {"label_names": [f"class {i}" for i in range(10)]}
    test_sum, meta_sum = write("test_batch", batch(5)), write("batches.meta", labels)
    test_parts = [["test_batch", test_sum]]
    labels_file = {"filename": "batches.meta", "key": "label_names", "md5": meta_sum}
    archive = tmp_path / "server" / "cifar.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(source, source.name)
    handler = functools.partial(QuietHandler, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:

        class SmallCifar10(CIFAR10):  # type: ignore[misc]  # torchvision has no types
            url = f"http://127.0.0.1:{server.server_port}/cifar.tar.gz"
            tgz_md5 = hashlib.md5(archive.read_bytes()).hexdigest()
            train_list = parts
            test_list = test_parts
            meta = labels_file

        threading.Thread(target=server.serve_forever, daemon=True).start()
        images = load_cifar10(tmp_path / "here", cache, dataset_class=SmallCifar10)
        server.shutdown()
    assert np.array_equal(images.images, np.stack([pixels(i, 32) for i in range(60)]))
    assert images.labels.tolist() == [*range(10)] * 6
    assert images.class_names[3] == "class 3"
    assert images.is_test is not None
    assert images.is_test.sum() == 10
    (tmp_path / "here" / "cifar-10-python.tar.gz").unlink()
    # The server is down: existing files are not downloaded again.
    again = load_cifar10(tmp_path / "here", tmp_path / "other cache", dataset_class=SmallCifar10)
    assert again.fingerprint == images.fingerprint
    (tmp_path / "here" / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"another pickle")
    with pytest.raises(DataError, match="cannot be downloaded"):
        load_cifar10(tmp_path / "here", cache, dataset_class=SmallCifar10)
