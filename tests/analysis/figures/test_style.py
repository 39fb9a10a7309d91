"""The style: few and round ticks on log axes."""

from hypothesis import given
from hypothesis import strategies as st

from analysis.figures.style import round_ticks, round_times, signed_tick


@given(st.floats(1e-3, 1e6), st.floats(1.0, 1e5))
def test_ticks_of_a_log_axis_are_few_and_round(low: float, ratio: float) -> None:
    ticks = round_ticks(low, low * ratio)
    assert 1 <= len(ticks) <= 4
    assert ticks == sorted(ticks)
    if ratio > 5:
        assert all(low / 1.31 <= tick <= low * ratio * 1.31 for tick in ticks)


@given(st.floats(1e-2, 1e5), st.floats(1.0, 1e4))
def test_ticks_of_times_are_few_and_round(low: float, ratio: float) -> None:
    ticks = round_times(low, low * ratio)
    assert 1 <= len(ticks) <= 4
    assert ticks == sorted(ticks)
    if low > 1:
        assert all(
            tick % (3600 if tick >= 3600 else 60 if tick >= 60 else 1) == 0 for tick in ticks
        ) or ticks == round_ticks(low, low * ratio)


def test_differences_have_signs_and_no_trailing_zeros() -> None:
    assert [signed_tick(value) for value in (-10.0, -0.5, 0.0, 1e-12, 0.025)] == [
        "−10", "−0.5", "0", "0", "+0.025",
    ]  # fmt: skip
