"""Features in files: shared by processes, checked when read, and never in the way."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from trainables.feature_files import STALE_SECONDS, FeatureFiles, delete_stale
from trainables.trainer import FeatureCache

FEATURES = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)


class Counted:
    """Computes features, and counts how often."""

    def __init__(self, features: Tensor = FEATURES) -> None:
        self.features, self.times = features, 0

    def __call__(self) -> Tensor:
        self.times += 1
        return self.features.clone()


def never() -> Tensor:
    raise AssertionError("they are in a file")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_another_process_reads_equal_features_and_computes_none(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    """A new cache has nothing in memory, as in a new process."""
    compute = Counted(FEATURES.to(dtype))
    FeatureCache(files=FeatureFiles(tmp_path / "sweep")).get("key", compute)
    later = FeatureCache(files=FeatureFiles(tmp_path / "sweep"))
    found = later.get("key", never)
    assert found.dtype == dtype
    assert torch.equal(found, FEATURES.to(dtype))
    assert later.get("key", never) is found
    assert later.get("other", compute).shape == FEATURES.shape
    assert compute.times == 2


@pytest.mark.parametrize("place", [2, 20, 100, -1])
def test_a_damaged_file_is_replaced(place: int, tmp_path: Path) -> None:
    files, compute = FeatureFiles(tmp_path), Counted()
    files.get("key", compute)
    path = tmp_path / "key.safetensors"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    assert torch.equal(files.get("key", compute), FEATURES)
    assert compute.times == 2
    assert torch.equal(files.get("key", never), FEATURES)
    path.write_bytes(data[: len(data) // 2])
    assert torch.equal(files.get("key", compute), FEATURES)


def test_threads_and_processes_that_need_the_same_features_wait(tmp_path: Path) -> None:
    compute, results = Counted(), []

    def get() -> None:
        results.append(FeatureFiles(tmp_path).get("key", compute))

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compute.times == 1
    assert all(torch.equal(each, FEATURES) for each in results)


def test_without_disk_space_features_are_only_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, compute = FeatureFiles(tmp_path), Counted()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4 * 96 - 1))
    for _ in range(2):
        assert torch.equal(files.get("key", compute), FEATURES)
    assert compute.times == 2
    assert not list(tmp_path.glob("*.safetensors"))


def test_where_no_folder_can_be_made_features_are_only_computed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert torch.equal(FeatureFiles(tmp_path / "file" / "sweep").get("key", Counted()), FEATURES)


@pytest.mark.parametrize("error", [RuntimeError, OSError, MemoryError])
def test_a_failed_computation_raises_and_leaves_the_lock(
    error: type[Exception], tmp_path: Path
) -> None:
    def fail() -> Tensor:
        raise error("no memory")

    files = FeatureFiles(tmp_path)
    with pytest.raises(error, match="no memory"):
        files.get("key", fail)
    assert torch.equal(files.get("key", Counted()), FEATURES)


def test_folders_of_sweeps_that_were_killed_are_deleted_after_a_while(tmp_path: Path) -> None:
    clock: Callable[[], float] = lambda: 10 * STALE_SECONDS  # noqa: E731
    for name, age in (("old", 1.1), ("new", 0.9)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, times=(0, clock() - age * STALE_SECONDS))
    delete_stale(tmp_path, now=clock)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
