"""Fitting uses only the examples in view, and compares members at their own temperatures."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.statistics.metrics import apply_temperature, fit_temperature, nll, nll_per_example
from ensemble.selection.candidates import Fit, Request
from ensemble.selection.fitting import CrossFit, assign_folds, fit_baselines
from ensemble.selection.mixture import Mixture, View
from ensemble.selection.orders import Likeness
from ensemble.selection.pool import Pool
from tests.pools import synthetic_pool

seeds = st.integers(0, 10_000)


@given(seed=seeds, examples=st.integers(10, 60), classes=st.integers(1, 5))
def test_folds_are_stratified(seed: int, examples: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, examples)
    fold_of = assign_folds(labels, 5, rng)
    for counted in [np.zeros(examples, int), labels]:
        counts = [np.bincount(counted[fold_of == fold], minlength=classes) for fold in range(5)]
        assert np.ptp(counts, axis=0).max() <= 1


@given(seed=seeds, sharpness=st.floats(0.01, 30.0))
def test_own_temperatures_equal_fit_temperature(seed: int, sharpness: float) -> None:
    pool = synthetic_pool(seed, skills=(1.5, 6.0), sharpness=(sharpness, sharpness))
    own = View.of(pool, np.arange(100)).prob_true("calibrated")
    for member in range(2):
        log_probs, labels = pool.log_probs[member][:100], pool.labels[:100]
        calibrated = apply_temperature(log_probs, fit_temperature(log_probs, labels))
        assert -np.log(own[:, member]).mean() == pytest.approx(nll(calibrated, labels), abs=2e-5)


def scrambled_in(pool: Pool, rows: np.ndarray) -> Pool:
    """Return the pool with other predictions and labels at `rows`, of the same fold sizes."""
    log_probs, labels = pool.stack(), pool.labels.copy()
    for label in np.unique(pool.labels[rows]):
        same = rows[pool.labels[rows] == label]
        log_probs[:, same] = log_probs[:, np.roll(same, 1), ::-1]
    return replace(pool, log_probs=log_probs, labels=labels)


@pytest.mark.parametrize("votes", [False, True])
def test_the_choice_for_a_fold_has_not_seen_its_labels(votes: bool) -> None:
    pool = synthetic_pool(3, seeds=2)
    if votes:
        hard = np.log(np.eye(3, dtype=np.float32)[pool.stack().argmax(2)] * 0.8 + 0.1)
        pool = replace(pool, log_probs=hard, votes=tuple(range(6)))
    # Ties are broken by disagreement on all examples, which needs no labels but the predictions.
    request = Request(members=3, diversity=0.0)
    first = CrossFit(pool, request, 1)
    for fold, rows in first.folds():
        elsewhere = CrossFit(scrambled_in(pool, rows), request, 1)
        chosen, other = first.ensemble(without=fold), elsewhere.ensemble(without=fold)
        assert chosen.candidate == other.candidate
        assert chosen.order == other.order
        np.testing.assert_array_equal(chosen.mixture.weights, other.mixture.weights)
        assert chosen.mixture.temperature == other.mixture.temperature
        seen = [fit_baselines(part.view, size=2) for part in (chosen, other)]
        assert set(seen[0]) == {"best_single", "uniform_top_k", "seeds_ensemble"}
        for name, baseline in seen[0].items():
            np.testing.assert_array_equal(baseline.weights, seen[1][name].weights)


def test_losses_out_of_fold_equal_a_loop_over_folds_and_candidates() -> None:
    pool = synthetic_pool(7, examples=200, seeds=2)
    crossed = CrossFit(pool, Request(members=3), 0)
    losses = crossed.ensemble().losses
    fold_of = crossed.fold_of
    for candidate in crossed.candidates:
        expected = np.empty(200)
        for fold in range(5):
            rows, rest = np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of != fold)
            fit = Fit(
                view=View.of(pool, rest), request=crossed.request, likeness=Likeness(pool), seed=0
            )
            mixture = Mixture.fit(fit.view, fit.weights(candidate), candidate.pooling)
            expected[rows] = nll_per_example(mixture.log_probs(pool, rows), pool.labels[rows])
        np.testing.assert_allclose(losses[candidate], expected, atol=2e-3)


def test_a_mixture_is_pooled_and_then_calibrated() -> None:
    pool = synthetic_pool(1)
    rows = np.arange(50)
    weights = np.array([0.5, 0.0, 0.3, 0.2, 0.0, 0.0])
    mixture = Mixture.fit(View.of(pool, rows), weights)
    pooled = np.log(np.einsum("m,mnk->nk", weights, np.exp(pool.stack()[:, rows].astype(float))))
    temperature = fit_temperature(pooled, pool.labels[rows])
    assert mixture.temperature == pytest.approx(temperature, rel=1e-4)
    np.testing.assert_allclose(
        mixture.log_probs(pool, rows), apply_temperature(pooled, temperature), atol=1e-3
    )
    assert mixture.size == 3


def test_a_calibrated_mixture_pools_members_at_their_own_temperatures() -> None:
    pool = synthetic_pool(1, sharpness=(0.3, 1.0, 3.0, 1.0, 1.0, 1.0))
    view = View.of(pool, np.arange(120))
    weights = np.array([0.5, 0.0, 0.3, 0.2, 0.0, 0.0])
    mixture = Mixture.fit(view, weights, "calibrated")
    own = [apply_temperature(pool.log_probs[m], view.temperatures[m]) for m in range(6)]
    pooled = np.log(np.einsum("m,mnk->nk", weights, np.exp(np.stack(own).astype(float))))
    temperature = fit_temperature(pooled, pool.labels)
    assert mixture.temperature == pytest.approx(temperature, rel=1e-4)
    np.testing.assert_allclose(
        mixture.log_probs(pool, view.rows), apply_temperature(pooled, temperature), atol=1e-3
    )


def test_underconfident_members_are_not_penalised() -> None:
    # Three good members, underconfident as with label smoothing, and three poor, sharp ones.
    pool = synthetic_pool(
        5, skills=(2.5, 2.5, 2.5, 1.2, 1.2, 1.2), sharpness=(0.2, 0.2, 0.2, 1, 1, 1), examples=400
    )
    raw = nll_per_example(pool.log_probs[0], pool.labels).mean()
    assert raw > nll_per_example(pool.log_probs[3], pool.labels).mean()
    chosen = CrossFit(pool, Request(members=3), 0).ensemble()
    assert set(np.flatnonzero(chosen.mixture.weights)) == {0, 1, 2}
    assert fit_baselines(chosen.view, size=3)["uniform_top_k"].weights[:3].min() > 0


def test_the_choice_is_no_worse_than_the_best_single() -> None:
    # One member is far better than the others, so a uniform ensemble of all would be worse.
    pool = synthetic_pool(2, skills=(6.0, 0.1, 0.1, 0.1), examples=300, common=0.0)
    chosen = CrossFit(pool, Request(members=4), 0).ensemble()
    single = fit_baselines(chosen.view, size=1)["best_single"]
    rows, labels = chosen.view.rows, pool.labels
    assert nll(chosen.mixture.log_probs(pool, rows), labels) <= (
        nll(single.log_probs(pool, rows), labels) + 1e-6
    )
