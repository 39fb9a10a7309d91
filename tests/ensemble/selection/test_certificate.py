"""The certificate of what ships, against slow oracles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from common.statistics.temperature import platt_smoothing
from ensemble.selection.certificate import certify
from ensemble.selection.mixture import Mixture, Pooling, View
from ensemble.selection.weights import em_weights, gap
from tests.pools import synthetic_pool

Array = np.ndarray


def calibrated_nll(pooled: Array, labels: Array) -> float:
    """Return the NLL of log-probabilities [N, K] at the temperature that a slow search finds."""
    smoothing, classes = platt_smoothing(len(labels)), pooled.shape[1]
    targets = np.full(pooled.shape, smoothing / (classes - 1))
    targets[np.arange(len(labels)), labels] = 1 - smoothing

    def loss(log_sharpness: float) -> float:
        scaled = log_softmax(np.exp(log_sharpness) * pooled, axis=1)
        return -float((targets * scaled).sum(axis=1).mean())

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-8})
    scaled = log_softmax(np.exp(best.x) * pooled, axis=1)
    return -float(scaled[np.arange(len(labels)), labels].mean())


@settings(max_examples=6)
@given(seed=st.integers(0, 10_000), pooling=st.sampled_from(["raw", "calibrated"]))
def test_certificates_equal_slow_oracles(seed: int, pooling: Pooling) -> None:
    pool = synthetic_pool(seed, sharpness=(0.5, 1, 2, 1, 0.7, 1.5))
    view = View.of(pool, np.arange(120))
    weights = np.array([0.5, 0.0, 0.3, 0.2, 0.0, 0.0])
    certificate = certify(view, Mixture.fit(view, weights, pooling))
    temperatures = np.ones(6) if pooling == "raw" else view.temperatures
    scaled = [log_softmax(p.astype(float) / t, axis=1) for p, t in zip(
        pool.log_probs, temperatures, strict=True
    )]  # fmt: skip
    probs = np.exp(np.stack(scaled))
    prob_true = probs[:, np.arange(120), pool.labels].T
    chosen = calibrated_nll(np.log(np.einsum("m,mnk->nk", weights, probs)), pool.labels)
    assert certificate.nll == pytest.approx(chosen, abs=1e-4)
    for scope, optimality in (
        (np.array([0, 2, 3]), certificate.support), (np.arange(6), certificate.pool)
    ):  # fmt: skip
        best = np.zeros(6)
        best[scope] = em_weights(prob_true[:, scope], iterations=20_000)
        before = np.log(prob_true @ best).mean() - np.log(prob_true @ weights).mean()
        assert optimality.excess_before_temperature == pytest.approx(before, abs=2e-5)
        after = chosen - calibrated_nll(np.log(np.einsum("m,mnk->nk", best, probs)), pool.labels)
        assert optimality.excess == pytest.approx(after, abs=2e-3)
        assert 0.0 <= optimality.gap <= 1e-6


@given(seed=st.integers(0, 10_000))
def test_two_steps_bound_the_loss_more_tightly_than_the_gap(seed: int) -> None:
    pool = synthetic_pool(seed)
    view = View.of(pool, np.arange(120))
    weights = np.full(6, 1 / 6)
    optimality = certify(view, Mixture.fit(view, weights)).pool
    two_steps = optimality.excess_before_temperature + optimality.gap
    assert -1e-9 <= two_steps <= gap(weights, view.prob_true("raw")) + 1e-6
    rng, raw = np.random.default_rng(seed), view.prob_true("raw")
    for other in rng.dirichlet(np.ones(6), size=20):
        gain = np.log(raw @ other).mean() - np.log(raw @ weights).mean()
        assert gain <= two_steps + 1e-9


def test_a_single_member_loses_nothing_against_itself() -> None:
    view = View.of(synthetic_pool(0), np.arange(120))
    certificate = certify(view, Mixture.fit(view, np.eye(6)[0]))
    assert certificate.support.excess == 0.0
    assert certificate.support.gap == 0.0
    assert certificate.pool.excess_before_temperature > 0.0
