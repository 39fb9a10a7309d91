"""Rungs: the epochs of their cooldowns, and the steps up to each of them."""

from hypothesis import given
from hypothesis import strategies as st

from common.rungs import (
    cooldown_epochs,
    course,
    epochs_trained,
    nearest_end,
    shortened_rung,
    steps_at_rungs,
)
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


FRACTIONS = st.sampled_from([0.0, 0.1, 0.34, 0.5, 0.8, 1.0])


@given(last=st.integers(1, 60), time=st.integers(1, 80), fraction=FRACTIONS)
def test_at_a_steady_pace_a_late_trial_uses_all_of_its_time(
    last: int, time: int, fraction: float
) -> None:
    """The last rung is the longest schedule that ends in time, found without training too far."""
    rung, epoch = last, 0
    while epoch < last - cooldown_epochs(last, fraction):
        epoch += 1
        shorter = shortened_rung([last], fraction, epoch=epoch, left=time - epoch)
        if shorter is not None:
            assert shorter - max(1, cooldown_epochs(shorter, fraction)) == epoch
            rung = shorter
            break
    # Shorter schedules begin with their cooldown, before anything is known of the pace.
    first = next(
        (n for n in range(1, last + 1) if n - max(1, cooldown_epochs(n, fraction)) > 0), last + 1
    )
    if first <= time:
        assert rung == min(last, time)


@given(rungs=RUNGS, epoch=st.integers(1, 40), left=st.integers(0, 40), fraction=FRACTIONS)
def test_a_shortened_schedule_ends_in_time_and_above_the_lower_rungs(
    rungs: list[int], epoch: int, left: int, fraction: float
) -> None:
    shorter = shortened_rung(rungs, fraction, epoch=epoch, left=left)
    if shorter is not None:
        assert max([0, *rungs[:-1]]) < shorter < rungs[-1]
        assert epoch < shorter <= epoch + left


@given(rungs=RUNGS, done=st.integers(0, 60), fraction=FRACTIONS)
def test_the_nearest_end_continues_what_was_trained(
    rungs: list[int], done: int, fraction: float
) -> None:
    trained = course(rungs, fraction)
    done = min(done, len(trained) - 1)
    nearest = nearest_end(rungs, fraction, done=done)
    steps = course(nearest, fraction)
    assert nearest[:-1] == tuple(rungs[:-1])
    assert nearest[-1] <= rungs[-1]
    assert steps[:done] == trained[:done]
    assert done < len(steps) <= len(trained)
