"""Latency and speedup with a simulated clock, and the exactness of their bounds."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from ensemble.deployment.latency import latency, median_ranks, paired_latency
from ensemble.deployment.onnx_model import OnnxClassifier
from tests.ensemble.deployment.test_onnx_model import pixels, write_linear

Array = np.ndarray[Any, Any]


class Clock:
    """Simulated seconds; the machine may slow down to half its speed in 0.25 seconds."""

    def __init__(self, *, slowing: bool = False) -> None:
        self.now, self._slowing = 0.0, slowing

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds * (2 ** (4 * self.now) if self._slowing else 1.0)


class TimedClassifier(OnnxClassifier):
    """Takes a known time per call and per image."""

    def __init__(self, path: Path, clock: Clock, *, call: float, image: float = 0.0) -> None:
        super().__init__(path)
        self.clock, self.call_seconds, self.image_seconds = clock, call, image

    def run(self, images: Array) -> Array:
        self.clock.advance(self.call_seconds + self.image_seconds * len(images))
        return np.empty(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_linear(tmp_path / "m.onnx")


def test_latency_is_in_milliseconds_and_images_per_second(path: Path) -> None:
    clock = Clock()
    model = TimedClassifier(path, clock, call=1e-4, image=1e-5)
    measured = latency(model, pixels(3), batch=8, repeats=20, clock=clock)
    assert measured.ms_batch1 == pytest.approx(0.11)
    assert measured.interval == pytest.approx((0.11, 0.11))
    assert measured.images_per_second == pytest.approx(8 / 1.8e-4)
    assert (measured.batch, measured.repeats, measured.threads) == (8, 20, 1)


def test_latency_of_a_real_model_is_within_its_interval(path: Path) -> None:
    measured = latency(OnnxClassifier(path), pixels(3), batch=8, repeats=20)
    assert 0 < measured.interval[0] <= measured.ms_batch1 <= measured.interval[1]
    assert measured.images_per_second > 0


def test_paired_latency_measures_a_ratio_on_a_machine_that_slows_down(path: Path) -> None:
    clock = Clock(slowing=True)
    slow, fast = (TimedClassifier(path, clock, call=seconds) for seconds in (6e-4, 2e-4))
    measured = paired_latency(slow, fast, pixels(1), repeats=9, clock=clock)
    assert measured.speedup.value == pytest.approx(3, rel=0.02)
    assert measured.speedup.bound <= measured.speedup.value
    assert measured.first.ms_batch1 == pytest.approx(3 * measured.second.ms_batch1, rel=0.02)
    reverse = paired_latency(fast, slow, pixels(1), repeats=9, clock=clock)
    assert reverse.speedup.value == pytest.approx(1 / 3, rel=0.02)


def test_too_few_repeats_for_a_bound_are_refused(path: Path) -> None:
    model = OnnxClassifier(path)
    with pytest.raises(ValueError, match=r"4 repeats are too few .* at least 5"):
        paired_latency(model, model, pixels(1), repeats=4)


@given(repeats=st.integers(8, 200), level=st.sampled_from([0.9, 0.95, 0.975]))
def test_the_ranks_are_the_tightest_at_their_level(repeats: int, level: float) -> None:
    low, high = median_ranks(repeats, level)
    assert binom.cdf(low, repeats, 0.5) <= 1 - level < binom.cdf(low + 1, repeats, 0.5)
    assert low + high == repeats - 1


def test_the_bound_covers_at_its_level() -> None:
    """False alarms of a 95% bound in 4,000 trials: at most 5% + 3 standard errors = 6.0%."""
    samples = np.sort(np.random.default_rng(0).exponential(size=(4000, 30)), axis=1)
    rank, _ = median_ranks(30, 0.95)
    assert (samples[:, rank] > math.log(2)).mean() <= 0.060
