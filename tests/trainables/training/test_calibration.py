"""Temperature and NLL on the device equal the slow reference in float64, degenerate cases too."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from common.statistics.metrics import LOG_FLOOR, apply_temperature, fit_temperature, nll
from trainables.training.calibration import Calibration

LogProbs = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Case = tuple[LogProbs, Labels]


def smoothed_loss(logp: LogProbs, labels: Labels) -> Callable[[float], float]:
    floored = np.maximum(logp.astype(np.float64), LOG_FLOOR)
    targets = np.full(floored.shape, 1 / (len(labels) + 2) / (floored.shape[1] - 1))
    targets[np.arange(len(labels)), labels] = 1 - 1 / (len(labels) + 2)
    return lambda t: float(-(targets * log_softmax(floored / t, axis=1)).sum(axis=1).mean())


def slow_temperature(logp: LogProbs, labels: Labels) -> float:
    """Return the minimum over log T by a bounded search, in float64; ties go to 1 and the ends."""
    loss = smoothed_loss(logp, labels)
    best = minimize_scalar(
        lambda log_t: loss(float(np.exp(log_t))),
        bounds=(float(np.log(0.05)), float(np.log(20.0))),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return min((1.0, 0.05, 20.0, float(np.exp(best.x))), key=loss)


def some_case(
    seed: int, *, count: int, classes: int, sharpness: float, right: float, offset: float = 0.0
) -> Case:
    """Return predictions of which a share `right` is sure of the label, the others of any class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) + offset
    sure = np.where(rng.random(count) < right, labels, rng.integers(0, classes, count))
    logits[np.arange(count), sure] += 3
    return log_softmax(logits * sharpness, axis=1).astype(np.float32), labels


CASES = st.builds(
    some_case,
    st.integers(0, 10_000),
    count=st.integers(1, 60),
    classes=st.integers(2, 40),
    sharpness=st.floats(0.01, 30),
    right=st.floats(0, 1),
    offset=st.sampled_from([0.0, 1000.0]),
)


def assert_equals_reference(logp: LogProbs, labels: Labels) -> None:
    """Compare T within 1e-4, or where the loss is flat, the loss within 1e-9; NLL within 1e-6."""
    loss, slow = smoothed_loss(logp, labels), slow_temperature(logp, labels)
    calibration = Calibration(torch.from_numpy(logp), torch.from_numpy(labels))
    for found in (calibration.temperature(), fit_temperature(logp, labels)):
        assert found == pytest.approx(slow, rel=1e-4) or loss(found) <= loss(slow) + 1e-9
    expected = nll(apply_temperature(logp, slow), labels)
    assert calibration.nll(slow) == pytest.approx(expected, abs=1e-6)


@given(CASES)
def test_temperature_and_nll_equal_the_slow_reference(case: Case) -> None:
    assert_equals_reference(*case)


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("margin", [1e-4, 0.1, 5.0, 100.0])
@pytest.mark.parametrize("right", [0.0, 0.5, 1.0], ids=["all wrong", "half", "all right"])
def test_degenerate_predictions(classes: int, margin: float, right: float) -> None:
    """All right or all wrong by the same margin, from nearly constant to floored probabilities."""
    labels = np.arange(40) % classes
    logits = np.zeros((40, classes))
    predicted = np.where(np.arange(40) < 40 * right, labels, (labels + 1) % classes)
    logits[np.arange(40), predicted] = margin
    assert_equals_reference(log_softmax(logits, axis=1).astype(np.float32), labels)


@pytest.mark.parametrize("classes", [1, 2, 7, 1000])
def test_constant_predictions_keep_temperature_1(classes: int) -> None:
    logp = np.full((9, classes), -np.log(classes), dtype=np.float32)
    labels = np.arange(9) % classes
    calibration = Calibration(torch.from_numpy(logp), torch.from_numpy(labels))
    assert calibration.temperature() == fit_temperature(logp, labels) == 1.0
    assert calibration.nll(1.0) == pytest.approx(np.log(classes), abs=1e-6)


def test_impossible_labels_cost_the_floor() -> None:
    logp = np.array([[0.0, -np.inf], [0.0, -np.inf], [-np.inf, 0.0]], dtype=np.float32)
    labels = np.array([0, 1, 1])
    assert_equals_reference(logp, labels)
    calibration = Calibration(torch.from_numpy(logp), torch.from_numpy(labels))
    assert calibration.nll(1.0) == pytest.approx(-LOG_FLOOR / 3, abs=1e-6)


def test_nan_keeps_temperature_1() -> None:
    logp = torch.full((3, 2), float("nan"))
    assert Calibration(logp, torch.tensor([0, 1, 0])).temperature() == 1.0


def test_many_chunks_equal_the_reference() -> None:
    """3,000 × 200 predictions are three chunks here and ten in `fit_temperature`."""
    assert_equals_reference(*some_case(1, count=3000, classes=200, sharpness=3.0, right=0.8))
