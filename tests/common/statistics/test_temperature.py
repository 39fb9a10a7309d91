"""Temperatures: the minimum of a convex loss, with slopes that vanish, jump or never change."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.statistics.temperature import TEMPERATURES, minimizing_temperature


class Quadratic:
    """The loss a·(1/T − b)², which counts how often it is asked."""

    def __init__(self, scale: float, minimum: float) -> None:
        self._scale, self._minimum = scale, minimum
        self.calls = 0

    def __call__(self, sharpness: float) -> tuple[float, float]:
        self.calls += 1
        return 2 * self._scale * (sharpness - self._minimum), 2 * self._scale


@given(scale=st.floats(1e-9, 1e9), minimum=st.floats(0.051, 19.9))
def test_a_quadratic_loss_needs_two_steps(scale: float, minimum: float) -> None:
    loss = Quadratic(scale, minimum)
    assert minimizing_temperature(loss) == pytest.approx(1 / minimum, rel=1e-6)
    assert loss.calls <= 3


@pytest.mark.parametrize(("minimum", "end"), [(-3.0, 20.0), (0.05, 20.0), (20.0, 0.05), (99, 0.05)])
def test_a_loss_that_falls_all_the_way_ends_at_a_bound(minimum: float, end: float) -> None:
    assert minimizing_temperature(Quadratic(1.0, minimum)) == pytest.approx(end)


@given(minimum=st.floats(0.051, 19.9), power=st.sampled_from([0.1, 0.5, 1.0, 3.0, 9.0]))
def test_slopes_on_which_newton_overshoots_or_creeps_are_bracketed(
    minimum: float, power: float
) -> None:
    """A slope |x|^p: for p < 1/2, Newton's steps alone diverge; for large p they creep."""
    calls = 0

    def derivatives(sharpness: float) -> tuple[float, float]:
        nonlocal calls
        calls += 1
        away = math.log(sharpness / minimum)
        slope = math.copysign(abs(away) ** power, away)
        return slope, power * max(abs(away), 1e-12) ** (power - 1) / sharpness

    found = minimizing_temperature(derivatives)
    assert abs(math.log(found * minimum)) ** max(power, 1) < 1e-4
    assert calls <= 200


@given(minimum=st.floats(0.051, 19.9), curvature=st.sampled_from([0.0, 1e-300]))
def test_a_kink_is_found_by_its_signs_alone(minimum: float, curvature: float) -> None:
    found = minimizing_temperature(lambda s: (math.copysign(1.0, s - minimum), curvature))
    assert found == pytest.approx(1 / minimum, rel=1e-5)


@pytest.mark.parametrize("slope", [0.0, math.nan])
def test_a_constant_or_undefined_loss_keeps_temperature_1(slope: float) -> None:
    assert minimizing_temperature(lambda _: (slope, 0.0)) == 1.0


def test_bounds_are_returned_exactly() -> None:
    low, high = TEMPERATURES
    assert minimizing_temperature(lambda _: (1.0, 1e-9)) == high
    assert minimizing_temperature(lambda _: (-1.0, 1e-9)) == low
