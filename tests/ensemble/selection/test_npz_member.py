"""Arrays read from .npz files entry by entry."""

import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from common.errors import PoolError
from ensemble.selection.npz_member import NpzMember
from ensemble.selection.pool_file import load_pool

Array = np.ndarray[Any, Any]
SAVERS = {"stored": np.savez, "compressed": np.savez_compressed}


@pytest.mark.parametrize("saver", SAVERS.values(), ids=SAVERS.keys())
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8", "f16", "u1", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_entries_equal_the_whole_array(
    saver: Callable[..., None], dtype: str, order: Any, tmp_path: Path
) -> None:
    expected = np.asarray(np.arange(60).reshape(5, 4, 3) % 7, dtype=dtype, order=order)
    path = tmp_path / "arrays.npz"
    saver(path, other=np.ones(3), probs=expected, more=np.ones(2))
    member = NpzMember(path, "probs")
    assert (member.shape, member.dtype) == (expected.shape, expected.dtype)
    for entry, array in enumerate(member.first_pass()):
        np.testing.assert_array_equal(array, expected[entry])
    for entry in (4, 0, 2):
        np.testing.assert_array_equal(member.read(entry), expected[entry])


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    np.savez(path, probs=np.zeros((5, 4, 3)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(PoolError, match=r"cannot be read as \.npz: Bad CRC"):
        list(NpzMember(path, "probs").first_pass())


def test_a_file_cut_after_it_was_checked_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    np.savez(path, probs=np.zeros((5, 4, 3)))
    member = NpzMember(path, "probs")
    assert len(list(member.first_pass())) == 5
    with path.open("r+b") as file:
        file.truncate(100)
    with pytest.raises(PoolError, match="was changed while it was read"):
        member.read(4)


@pytest.mark.parametrize("shape", [(10**10, 300, 4), (-1, 300, 4), (1, -300, -4), (5, 300, 4)])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_header_that_lies_about_the_shape_is_refused_at_once(
    shape: tuple[int, ...], compression: int, tmp_path: Path
) -> None:
    path = tmp_path / "arrays.npz"
    with zipfile.ZipFile(path, "w", compression) as archive:
        with archive.open("probs.npy", "w") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(np.zeros((2, 300, 4), np.float32).tobytes())
        with archive.open("labels.npy", "w") as file:
            np.save(file, np.zeros(300, np.int64))
    with pytest.raises(PoolError, match=r"header of 'probs' says shape .* 9600 bytes"):
        load_pool(path)


def test_unpacking_needs_disk_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "arrays.npz"
    np.savez_compressed(path, probs=np.ones((5, 4, 3)))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(PoolError, match=r"has to be unpacked, which takes .* free; make room"):
        next(NpzMember(path, "probs").first_pass())


@pytest.mark.parametrize("saver", SAVERS.values(), ids=SAVERS.keys())
def test_loading_a_pool_holds_one_members_predictions(
    saver: Callable[..., None], tmp_path: Path
) -> None:
    members, examples, classes = 100, 400, 50
    probs = np.random.default_rng(0).dirichlet(np.ones(classes), (members, examples))
    path = tmp_path / "pool.npz"
    saver(path, probs=probs, labels=np.arange(examples) % classes)
    one = examples * classes * 8
    prob_true = examples * members * 4
    tracemalloc.start()
    try:
        pool = load_pool(path)
        loaded, peak = tracemalloc.get_traced_memory()
        for log_probs in pool.log_probs:
            assert log_probs.shape == (examples, classes)
        _, peak_of_pass = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Checking, renormalizing and taking the logarithm of one member's rows takes a few copies.
    assert loaded < prob_true + 2 * one
    assert max(peak, peak_of_pass) < prob_true + 10 * one
    assert probs.nbytes == members * one
