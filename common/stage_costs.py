"""The cost of a schedule's epochs, for recipes whose stages differ in cost.

The unit is an epoch of the recipe's last stage, with its scoring. If only the head learns and
the features below it are computed once (trainables/training/active_stage.py), an epoch may cost
a tenth of one that trains everything, and the features may cost several such epochs.

Forecast and actual time on 6,000 images of CIFAR-10 (JPEG; width 32, one thread of a busy
machine, n = 1 each): 31.5 and 29.1 s for four epochs of the head and three of everything with
rungs 2 and 7 (69.8 s if all epochs cost as in the last stage); 10.8 and 12.7 s for twelve epochs
of a head alone (5.9 s without the features).
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

from common.rungs import epochs_trained, steps_at_rungs


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCosts:
    """The costs of a recipe's stages."""

    starts: tuple[int, ...] = (0,)
    """Epochs of the schedule before each stage."""
    epochs: tuple[float, ...] = (1.0,)
    """Cost of one epoch in each stage; the last is 1."""
    entries: tuple[float, ...] = (0.0,)
    """Cost of the features that are computed once, when a stage is entered."""

    @property
    def without_entries(self) -> "StageCosts":
        """The costs where the features are there already."""
        return replace(self, entries=(0.0,) * len(self.entries))

    def of_step(self, epoch: int, *, before: int) -> float:
        """Return the cost of `epoch` of the schedule right after epoch `before` (0 for none)."""
        stage = self._stage(epoch)
        entered = before == 0 or self._stage(before) != stage
        return self.epochs[stage] + entered * self.entries[stage]

    def of_steps(self, epochs: Iterable[int]) -> Iterator[float]:
        """Yield the cost of each of these epochs of the schedule, trained one after another."""
        before = 0
        for epoch in epochs:
            yield self.of_step(epoch, before=before)
            before = epoch

    def _stage(self, epoch: int) -> int:
        return max(0, bisect_left(self.starts, epoch) - 1)


EQUAL = StageCosts()
"""The costs of a recipe without stages."""


@lru_cache(maxsize=256)
def cost_after(
    rungs: tuple[int, ...], cooldown_fraction: float, costs: StageCosts
) -> tuple[float, ...]:
    """Return the cost of a schedule up to 0, 1, 2 … steps, cooldown branches included."""
    trained = epochs_trained(rungs, cooldown_fraction)
    return tuple(accumulate(costs.of_steps(trained), initial=0.0))


def cost_at_rungs(
    rungs: Sequence[int], cooldown_fraction: float, costs: StageCosts
) -> tuple[float, ...]:
    """Return the cost of a schedule up to each of its rungs."""
    after = cost_after(tuple(rungs), cooldown_fraction, costs)
    return tuple(after[steps] for steps in steps_at_rungs(rungs, cooldown_fraction))
