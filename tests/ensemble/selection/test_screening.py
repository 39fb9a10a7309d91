"""Screened means against float64, and their stated error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.selection import screening
from ensemble.selection.screening import MeanLogs


@given(
    seed=st.integers(0, 10_000),
    spread=st.sampled_from([0.01, 1.0, 5.0, 15.0]),
    floor=st.sampled_from([1e-7, 1e-20, 1e-29]),
    joined=st.integers(0, 60),
    smallest_chunks=st.booleans(),
)
def test_means_differ_from_float64_by_less_than_their_error(
    seed: int, spread: float, floor: float, joined: int, smallest_chunks: bool
) -> None:
    rng = np.random.default_rng(seed)
    members = 4000 if smallest_chunks else int(rng.integers(1, 80))
    shape = (int(rng.integers(1, 200)), members)
    columns = np.maximum(1.0 / (1.0 + np.exp(-spread * rng.normal(size=shape))), floor)
    total = columns[:, rng.integers(0, members, joined)].sum(axis=1)
    screen = MeanLogs(columns)
    assert screen.trusted
    for sums in (total, 0.0 * total, total):
        means, error = screen.at(sums)
        expected = np.log(columns + sums[:, None]).mean(axis=0)
        assert np.abs(means - expected).max() <= error + 1e-12
        assert error < 1e-4


def test_columns_beyond_single_precision_are_not_trusted() -> None:
    assert MeanLogs(np.array([[1e-20, 1e-45]])).trusted
    assert not MeanLogs(np.array([[1.0, 0.0]])).trusted
    assert not MeanLogs(np.array([[1.0, screening.LEAST / 2]])).trusted


@pytest.mark.parametrize("examples", [1, 15, 16, 17, 33])
def test_rows_of_padding_add_nothing(examples: int) -> None:
    columns = np.full((examples, 3), [0.5, 0.25, 0.125])
    means, _ = MeanLogs(columns).at(np.zeros(examples))
    np.testing.assert_allclose(means, np.log(columns[0]), atol=1e-6)
