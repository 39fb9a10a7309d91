"""The epochs that a schedule with rungs trains.

Each rung is a finished training: the learning rate falls to zero over a cooldown before it,
in a branch from a trunk that runs at a constant rate. The next rung continues from where the
branch began.
"""

import math
from collections.abc import Sequence


def cooldown_epochs(rung: int, fraction: float) -> int:
    """Return the cooldown epochs before `rung`: that fraction of it, rounded up, at least 1."""
    # 0.07 × 100 is 7.000000000000001 in binary; that is seven epochs, not eight.
    return max(1, math.ceil(fraction * rung - 1e-9))


def epochs_trained(rungs: Sequence[int], cooldown_fraction: float) -> tuple[int, ...]:
    """Return the epoch of the schedule that each step trains, cooldown branches included."""
    trunk, epochs = 0, list[int]()
    for rung in rungs:
        epochs += range(trunk + 1, rung + 1)
        trunk = rung - cooldown_epochs(rung, cooldown_fraction)
    return tuple(epochs)


def steps_at_rungs(rungs: Sequence[int], cooldown_fraction: float) -> tuple[int, ...]:
    """Return the number of epochs trained up to each rung, lower rungs' branches included."""
    steps, trunk, counts = 0, 0, []
    for rung in rungs:
        steps += rung - trunk
        trunk = rung - cooldown_epochs(rung, cooldown_fraction)
        counts.append(steps)
    return tuple(counts)
