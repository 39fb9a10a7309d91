"""Views without folds, from one pass, against views that are fitted to their examples."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PoolError
from ensemble.selection.fold_views import FoldViews
from ensemble.selection.mixture import View
from ensemble.selection.pool import Pool, refit_votes
from tests.pools import synthetic_pool

SHARPNESS = (0.01, 0.3, 1.0, 1.0, 3.0, 30.0)


def one_hot(pool: Pool) -> Pool:
    votes = np.log(np.eye(3, dtype=np.float32)[pool.stack().argmax(2)] * 0.8 + 0.1)
    return replace(pool, log_probs=np.concatenate([votes[:2], pool.stack()[2:]]), votes=(0, 1))


@settings(max_examples=12)
@given(
    seed=st.integers(0, 1000),
    examples=st.sampled_from([12, 60, 500, 4000]),
    votes=st.booleans(),
    perfect=st.booleans(),
)
def test_views_equal_those_fitted_to_their_examples(
    seed: int, examples: int, votes: bool, perfect: bool
) -> None:
    skills = (1.0, 1.5, 2.0, 1.2, 1.8, 90.0 if perfect else 1.6)
    pool = synthetic_pool(seed, skills=skills, sharpness=SHARPNESS, examples=examples)
    pool = one_hot(pool) if votes else pool
    fold_of = np.random.default_rng(seed).integers(0, 5, examples)
    views = FoldViews(pool, fold_of, 5)
    for excluded in ([], [2], [0, 4]):
        view = views.without(excluded)
        rows = np.flatnonzero(~np.isin(fold_of, excluded))
        exact = View.of(refit_votes(pool, rows), rows)
        np.testing.assert_array_equal(view.rows, rows)
        np.testing.assert_allclose(view.nlls, exact.nlls, atol=1e-5 + 1e-3 / examples)
        np.testing.assert_allclose(view.temperatures, exact.temperatures, rtol=2e-2)
        own, raw = (view.prob_true(pooling) for pooling in ("calibrated", "raw"))
        np.testing.assert_allclose(-np.log(own).mean(axis=0), view.nlls, atol=1e-5)
        np.testing.assert_allclose(raw, exact.prob_true("raw"))
        np.testing.assert_array_equal(view.prob_true("calibrated", [5, 1]), own[:, [5, 1]])


def test_predictions_that_are_not_finite_are_refused() -> None:
    pool = synthetic_pool(0)
    pool.log_probs[3][7, 0] = np.nan
    with pytest.raises(PoolError, match="'t0003' has predictions that are not finite"):
        FoldViews(pool, np.arange(120) % 5, 5)
