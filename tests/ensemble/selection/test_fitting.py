"""Fitting uses only the examples in view, and compares members at their own temperatures."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.statistics.metrics import apply_temperature, fit_temperature, nll, nll_per_example
from ensemble.selection.fitting import fit_baselines, fit_ensemble, stratified_folds
from ensemble.selection.mixture import Mixture, View
from ensemble.selection.pool import refit_votes
from tests.pools import synthetic_pool

seeds = st.integers(0, 10_000)


@given(seed=seeds, examples=st.integers(10, 60), classes=st.integers(1, 5))
def test_folds_are_a_stratified_partition(seed: int, examples: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, examples)
    pairs = list(stratified_folds(labels, 5, rng))
    assert sorted(np.concatenate([fold for _, fold in pairs])) == list(range(examples))
    for rest, fold in pairs:
        assert sorted([*rest, *fold]) == list(range(examples))
    for counted in [np.zeros(examples, int), labels]:
        counts = [np.bincount(counted[fold], minlength=classes) for _, fold in pairs]
        assert np.ptp(counts, axis=0).max() <= 1


@given(seed=seeds, sharpness=st.floats(0.01, 30.0))
def test_own_temperatures_equal_fit_temperature(seed: int, sharpness: float) -> None:
    pool = synthetic_pool(seed, skills=(1.5, 6.0), sharpness=(sharpness, sharpness))
    own = View.of(pool, np.arange(100)).own
    for member in range(2):
        log_probs, labels = pool.log_probs[member, :100], pool.labels[:100]
        calibrated = apply_temperature(log_probs, fit_temperature(log_probs, labels))
        assert -np.log(own[:, member]).mean() == pytest.approx(nll(calibrated, labels), abs=2e-5)


@pytest.mark.parametrize("votes", [False, True])
def test_only_the_examples_in_view_matter(votes: bool) -> None:
    pool = synthetic_pool(3, seeds=2)
    rows, others = np.arange(0, 120, 2), np.arange(1, 120, 2)
    if votes:
        hard = np.log(np.eye(3, dtype=np.float32)[pool.log_probs.argmax(2)] * 0.8 + 0.1)
        pool = refit_votes(replace(pool, log_probs=hard, votes=tuple(range(6))), rows)
    scrambled = pool.log_probs.copy()
    scrambled[:, others] = scrambled[:, others, ::-1]
    labels = pool.labels.copy()
    labels[others] = 2 - labels[others] // 2
    elsewhere = refit_votes(replace(pool, log_probs=scrambled, labels=labels), rows)
    fitted = [fit_ensemble(View.of(p, rows), members=3, seed=1) for p in (pool, elsewhere)]
    assert fitted[0].order == fitted[1].order
    assert fitted[0].weighting_reason == fitted[1].weighting_reason
    np.testing.assert_array_equal(fitted[0].mixture.weights, fitted[1].mixture.weights)
    assert fitted[0].mixture.temperature == fitted[1].mixture.temperature
    for p in (pool, elsewhere):
        baselines = fit_baselines(View.of(p, rows), size=2)
        assert set(baselines) == {"best_single", "uniform_top_k", "seeds_ensemble"}
        own = View.of(p, rows).own
        best = int(np.argmin(-np.log(own).mean(axis=0)))
        assert baselines["best_single"].weights.argmax() == best


def test_a_mixture_is_pooled_and_then_calibrated() -> None:
    pool = synthetic_pool(1)
    rows = np.arange(50)
    weights = np.array([0.5, 0.0, 0.3, 0.2, 0.0, 0.0])
    mixture = Mixture.fit(View.of(pool, rows), weights)
    pooled = np.log(np.einsum("m,mnk->nk", weights, np.exp(pool.log_probs[:, rows].astype(float))))
    temperature = fit_temperature(pooled, pool.labels[rows])
    assert mixture.temperature == pytest.approx(temperature, rel=1e-4)
    np.testing.assert_allclose(
        mixture.log_probs(pool, rows), apply_temperature(pooled, temperature), atol=1e-3
    )
    assert mixture.size == 3


def test_underconfident_members_are_not_penalised() -> None:
    # Three good members, underconfident as with label smoothing, and three poor, sharp ones.
    pool = synthetic_pool(
        5, skills=(2.5, 2.5, 2.5, 1.2, 1.2, 1.2), sharpness=(0.2, 0.2, 0.2, 1, 1, 1), examples=400
    )
    raw = nll_per_example(pool.log_probs[0], pool.labels).mean()
    assert raw > nll_per_example(pool.log_probs[3], pool.labels).mean()
    view = View.of(pool, np.arange(400))
    assert set(np.flatnonzero(fit_ensemble(view, members=3, seed=0).mixture.weights)) == {0, 1, 2}
    assert fit_baselines(view, size=3)["uniform_top_k"].weights[:3].min() > 0


def test_uniform_weights_are_no_worse_than_the_best_single() -> None:
    # One member is far better than the others, so a uniform ensemble of all would be worse.
    pool = synthetic_pool(2, skills=(6.0, 0.1, 0.1, 0.1), examples=300, common=0.0)
    view = View.of(pool, np.arange(300))
    ensemble = fit_ensemble(view, members=4, seed=0)
    single = fit_baselines(view, size=1)["best_single"]
    labels = pool.labels
    assert nll(ensemble.mixture.log_probs(pool, view.rows), labels) <= (
        nll(single.log_probs(pool, view.rows), labels) + 1e-6
    )
