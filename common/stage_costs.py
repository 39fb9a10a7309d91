"""What the epochs of a schedule cost, where the stages of a recipe cost differently.

The unit is an epoch of the recipe's last stage, scored as every epoch is. Where only the head
learns and what lies before it is computed once (trainables/training/active_stage.py), an epoch may
cost a tenth of one that trains everything, and the computing several such epochs.

On 6,000 images of CIFAR-10 (JPEG; width 32, one thread of a busy machine, n = 1 each), forecast
and taken: 31.5 and 29.1 s for four epochs of the head and three of everything with rungs 2 and 7,
where the last stage's pace for all epochs would say 69.8; 10.8 and 12.7 s for twelve epochs of a
head alone, where an epoch's pace would say 5.9.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from common.rungs import epochs_trained, steps_at_rungs


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCosts:
    """By stage of a recipe."""

    starts: tuple[int, ...] = (0,)
    """Epochs of the schedule before the stage."""
    epochs: tuple[float, ...] = (1.0,)
    """Of one epoch in it; the last is 1."""
    entries: tuple[float, ...] = (0.0,)
    """Of what is computed once, when it is entered."""

    def of_step(self, epoch: int, *, before: int) -> float:
        """Of training `epoch` of the schedule right after epoch `before`, 0 for none."""
        stage = self._stage(epoch)
        entered = before == 0 or self._stage(before) != stage
        return self.epochs[stage] + entered * self.entries[stage]

    def of_steps(self, epochs: Iterable[int]) -> Iterator[float]:
        """Of each of these epochs of the schedule, trained one after the other."""
        before = 0
        for epoch in epochs:
            yield self.of_step(epoch, before=before)
            before = epoch

    def _stage(self, epoch: int) -> int:
        return max(0, bisect_left(self.starts, epoch) - 1)


EQUAL = StageCosts()
"""Of a recipe without stages."""


@lru_cache(maxsize=256)
def cost_after(
    rungs: tuple[int, ...], cooldown_fraction: float, costs: StageCosts
) -> tuple[float, ...]:
    """What a schedule has cost after 0, 1, 2 … steps, cooldown branches included."""
    trained = epochs_trained(rungs, cooldown_fraction)
    return tuple(accumulate(costs.of_steps(trained), initial=0.0))


def cost_at_rungs(
    rungs: Sequence[int], cooldown_fraction: float, costs: StageCosts
) -> tuple[float, ...]:
    """What a schedule has cost when each of its rungs is scored."""
    after = cost_after(tuple(rungs), cooldown_fraction, costs)
    return tuple(after[steps] for steps in steps_at_rungs(rungs, cooldown_fraction))
