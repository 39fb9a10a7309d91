"""The epochs that a schedule with rungs trains.

Each rung is a finished training: the learning rate falls to zero over a cooldown before it,
in a branch from a trunk that runs at a constant rate. Training for the next rung continues from
where the branch began. A cooldown takes whole epochs, so its share of a short rung can differ from
the recipe's `cooldown_fraction`.
"""

import math
from collections.abc import Sequence


def cooldown_epochs(rung: int, fraction: float) -> int:
    """Return the cooldown epochs before `rung`: the nearest whole number to that fraction of it.

    Halves round up, and a fraction above 0 gives at least one epoch: 0.34 gives 1 of 1 or 3
    epochs, 3 of 9 and 9 of 27. A fraction of 0 means no cooldown.
    """
    if fraction == 0:
        return 0
    # 0.29 × 50 is 14.499999999999998 in binary; it counts as 14.5.
    return max(1, math.floor(fraction * rung + 0.5 + 1e-9))


def epochs_trained(rungs: Sequence[int], cooldown_fraction: float) -> tuple[int, ...]:
    """Return the epoch of the schedule that each step trains, cooldown branches included."""
    return tuple(epoch for epoch, _ in course(rungs, cooldown_fraction))


def course(rungs: Sequence[int], cooldown_fraction: float) -> tuple[tuple[int, int | None], ...]:
    """Return the epoch that each step trains, and the rung whose cooldown it belongs to, if any."""
    trunk, steps = 0, list[tuple[int, int | None]]()
    for rung in rungs:
        start = rung - cooldown_epochs(rung, cooldown_fraction)
        steps += ((epoch, rung if epoch > start else None) for epoch in range(trunk + 1, rung + 1))
        trunk = start
    return tuple(steps)


def shortened_rung(
    rungs: Sequence[int], cooldown_fraction: float, *, epoch: int, left: int
) -> int | None:
    """Return a lower last rung for a trial that has time for only `left` more epochs.

    The trial has trained up to `epoch` of the schedule, on the trunk after the last rung but one.
    Return the highest rung whose cooldown starts now and ends in time; without cooldowns, that is
    the next epoch. Return None if the whole schedule fits, if a cooldown that starts an epoch later
    still ends in time, or if no cooldown fits.
    """
    last = rungs[-1]
    if epoch + left >= last:
        return None
    starts = {
        rung: rung - max(1, cooldown_epochs(rung, cooldown_fraction))
        for rung in range(max([epoch, *rungs[:-1]]) + 1, last + 1)
    }
    if any(start > epoch and rung <= epoch + left for rung, start in starts.items()):
        return None
    fitting = [rung for rung, start in starts.items() if start == epoch and rung <= epoch + left]
    return max(fitting, default=None)


def nearest_end(rungs: Sequence[int], cooldown_fraction: float, *, done: int) -> tuple[int, ...]:
    """Return `rungs` with their last one lowered as far as `done` completed steps allow.

    The completed steps are the same in both schedules, and at least one more follows.
    """
    trained = course(rungs, cooldown_fraction)[:done]
    lower = tuple(rungs[:-1])
    for last in range(max((0, *lower)) + 1, rungs[-1]):
        steps = course((*lower, last), cooldown_fraction)
        # A cooldown that has begun is that of its own rung.
        if len(steps) > done and steps[:done] == trained:
            return (*lower, last)
    return tuple(rungs)


def steps_at_rungs(rungs: Sequence[int], cooldown_fraction: float) -> tuple[int, ...]:
    """Return the number of epochs trained up to each rung, lower rungs' branches included."""
    steps, trunk, counts = 0, 0, []
    for rung in rungs:
        steps += rung - trunk
        trunk = rung - cooldown_epochs(rung, cooldown_fraction)
        counts.append(steps)
    return tuple(counts)
