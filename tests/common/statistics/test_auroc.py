"""The area under the ROC curve against its definition, and the coverage of its interval."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from common.statistics.auroc import auroc

Array = np.ndarray[Any, Any]


@given(
    positive=st.lists(st.integers(0, 6), min_size=2, max_size=30),
    negative=st.lists(st.integers(0, 6), min_size=2, max_size=30),
)
def test_it_is_the_share_of_pairs_in_order(positive: list[int], negative: list[int]) -> None:
    a, b = np.array(positive, float), np.array(negative, float)
    value, interval = auroc(a, b)
    pairs = (a[:, None] > b[None, :]) + 0.5 * (a[:, None] == b[None, :])
    assert value == pytest.approx(pairs.mean())
    labels = np.repeat([1, 0], [len(a), len(b)])
    assert value == pytest.approx(roc_auc_score(labels, np.concatenate([a, b])))
    assert 0 <= interval.low <= value + 1e-12
    assert value - 1e-12 <= interval.high <= 1


def test_the_variance_is_that_of_delongs_components() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 40), rng.normal(0, 1, 60)
    pairs = (a[:, None] > b[None, :]) + 0.5 * (a[:, None] == b[None, :])
    variance = pairs.mean(axis=1).var(ddof=1) / 40 + pairs.mean(axis=0).var(ddof=1) / 60
    value, interval = auroc(a, b)
    odds = np.log(value / (1 - value))
    half = norm.isf(0.025) * np.sqrt(variance) / (value * (1 - value))
    assert np.log(interval.high / (1 - interval.high)) == pytest.approx(odds + half)
    assert np.log(interval.low / (1 - interval.low)) == pytest.approx(odds - half)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_the_interval_covers(shift: float) -> None:
    rng = np.random.default_rng(2)
    truth = norm.cdf(shift / np.sqrt(2))
    covered = 0
    for _ in range(400):
        _, interval = auroc(rng.normal(shift, 1, 60), rng.normal(0, 1, 100))
        covered += interval.low <= truth <= interval.high
    assert covered >= 368  # 92%; at a true 95%, fewer are covered in 1 of 100 such tests


def test_sets_that_do_not_overlap_leave_room() -> None:
    value, interval = auroc(np.arange(10, 30.0), np.arange(10.0))
    assert (value, interval.high) == (1.0, 1.0)
    assert interval.low == pytest.approx(0.025 ** (1 / 10))
    value, interval = auroc(np.arange(10.0), np.arange(10, 30.0))
    assert (value, interval.low) == (0.0, 0.0)


def test_one_score_is_refused() -> None:
    with pytest.raises(ValueError, match="two scores or more"):
        auroc(np.ones(1), np.ones(5))
