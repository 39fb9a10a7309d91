"""Rungs: the epochs of their cooldowns, and the steps up to each of them."""

from hypothesis import given
from hypothesis import strategies as st

from common.rungs import cooldown_epochs, epochs_trained, steps_at_rungs
from trainables.recipe import Recipe

RUNGS = st.sets(st.integers(1, 40), min_size=1, max_size=4).map(sorted)


@given(rung=st.integers(1, 500), percent=st.integers(0, 100))
def test_cooldown_is_the_share_rounded_and_at_least_one_epoch(rung: int, percent: int) -> None:
    nearest = (2 * rung * percent + 100) // 200  # halves round up
    assert cooldown_epochs(rung, percent / 100) == (max(1, nearest) if percent else 0)


def test_the_default_cooldown_is_a_third_of_every_rung() -> None:
    fraction = Recipe().schedule.cooldown_fraction
    assert [cooldown_epochs(rung, fraction) for rung in (3, 9, 27, 81)] == [1, 3, 9, 28]


@given(rung=st.integers(1, 500), fraction=st.floats(0.0, 1.0))
def test_the_share_of_a_cooldown_is_at_most_half_an_epoch_off(rung: int, fraction: float) -> None:
    cooldown = cooldown_epochs(rung, fraction)
    assert cooldown <= rung
    if fraction * rung >= 0.5:
        assert abs(cooldown - fraction * rung) <= 0.5 + 1e-8
    else:
        assert cooldown == (fraction > 0)


def test_without_a_cooldown_no_epoch_is_trained_twice() -> None:
    assert epochs_trained((2, 4), 0.0) == (1, 2, 3, 4)
    assert steps_at_rungs((2, 4), 0.0) == (2, 4)


def test_a_branch_repeats_the_epochs_of_the_cooldown_before_it() -> None:
    """A cooldown of two epochs before rung 4: the trunk continues after epoch 2."""
    assert epochs_trained((4, 8), 0.5) == (1, 2, 3, 4, 3, 4, 5, 6, 7, 8)
    assert steps_at_rungs((4, 8), 0.5) == (4, 10)


@given(rungs=RUNGS, fraction=st.floats(0, 1))
def test_the_steps_at_a_rung_end_with_its_epoch(rungs: list[int], fraction: float) -> None:
    trained = epochs_trained(rungs, fraction)
    steps = steps_at_rungs(rungs, fraction)
    assert [trained[step - 1] for step in steps] == rungs
    assert steps[-1] == len(trained)
