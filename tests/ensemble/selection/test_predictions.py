"""Predictions in files and in memory lead to the same pool and the same selection."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.parsing import to_mapping
from ensemble.selection.candidates import Request
from ensemble.selection.decision import select_ensemble
from ensemble.selection.pool import Pool
from ensemble.selection.pool_file import load_pool
from ensemble.selection.predictions import RecentArrays, StoredPredictions
from tests.pools import synthetic_pool


def stored(tmp_path: Path, pool: Pool, *, votes: int = 0) -> Pool:
    probs = np.exp(pool.stack().astype(np.float64))
    probs[:votes] = np.eye(probs.shape[2])[probs[:votes].argmax(axis=2)]
    np.savez(tmp_path / "pool.npz", probs=probs, labels=pool.labels)
    return load_pool(tmp_path / "pool.npz")


@pytest.mark.parametrize("votes", [0, 2, 6])
def test_a_stored_pool_equals_the_same_pool_in_memory(votes: int, tmp_path: Path) -> None:
    pool = stored(tmp_path, synthetic_pool(5, examples=200), votes=votes)
    in_memory = replace(pool, log_probs=pool.stack())
    np.testing.assert_array_equal(np.stack([*pool.log_probs]), in_memory.stack())
    np.testing.assert_allclose(pool.prob_true(), in_memory.prob_true(), rtol=1e-6)
    some = [4, 0, 3]
    np.testing.assert_array_equal(pool.prob_true(some), pool.prob_true()[:, some])
    request = Request(members=3)
    selections = [to_mapping(select_ensemble(p, request)) for p in (pool, in_memory)]
    assert_alike(*selections)


def assert_alike(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_alike(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for first, second in zip(a, b, strict=True):
            assert_alike(first, second)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-6)
    else:
        assert a == b


def test_recent_arrays_are_held_up_to_their_bytes() -> None:
    made: list[int] = []

    def make(number: int) -> np.ndarray:
        made.append(number)
        return np.full(10, number, np.uint8)

    recent = RecentArrays(most_bytes=25)
    for number in (0, 1, 0, 2, 0, 1):
        assert recent.get(number, lambda n=number: make(n))[0] == number  # type: ignore[misc]
    assert made == [0, 1, 2, 1]


def test_there_are_no_more_members_than_stored() -> None:
    zeros = np.zeros((3, 2), np.float32)
    predictions = StoredPredictions(lambda member: zeros, (4, 3, 2), np.ones((3, 4), np.float32))
    assert len(list(predictions)) == 4
    with pytest.raises(IndexError, match="4 members, and no member 4"):
        predictions[4]
