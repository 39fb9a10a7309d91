"""The learning-rate schedule, with a complete cooldown before every rung.

A rung's score should show what that many epochs can achieve. So the trunk runs at a constant
learning rate, and the last epochs before a rung are a branch in which the rate falls linearly to
zero (warm-up, stable, decay: arXiv 2405.18392). A trial that continues past a rung restores the
trunk from where the branch began.

    rate   ┌───────┬────────────┬─────── … trunk
          ╱        │╲           │╲
         ╱         │ ╲ rung 3   │ ╲ rung 9
    epoch 0        2  3         6  9

Drawn for a cooldown fraction of a third.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from common.errors import SpecError
from common.rungs import cooldown_epochs
from trainables.recipe import Recipe
from trainables.stages import stage_at, stage_starts


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlan:
    """One epoch of a training. Epochs and steps count from 1; a step is here an epoch trained."""

    step: int
    """Epochs trained when this one has ended, branches included."""
    epoch: int
    """Epoch of the schedule, from 1; equal to the rung at a rung's end."""
    phase: Literal["trunk", "cooldown"]
    rung: int | None
    """The rung that is scored at the end of this epoch, if any."""
    branch: int | None
    """The rung at the end of this cooldown; None on the trunk."""
    restore: bool
    """True if the trunk is restored before this epoch."""
    keep: bool
    """True if the trunk is kept before this epoch, because a later epoch restores it."""
    stage: int = 0
    """Index of the recipe's stage."""


def plan_epochs(rungs: Sequence[int], recipe: Recipe) -> tuple[EpochPlan, ...]:
    """Return every epoch of a trial that is scored at `rungs`.

    Raises:
        SpecError: the rungs do not rise from 1 or more up to the recipe's epochs.
    """
    schedule = recipe.schedule
    if not rungs or rungs[0] < 1 or list(rungs) != sorted(set(rungs)):
        raise SpecError(f"rungs must be rising epoch counts, got {list(rungs)}")
    if rungs[-1] != schedule.epochs:
        raise SpecError(f"the last of rungs {list(rungs)} must be epochs = {schedule.epochs}")
    plans: list[EpochPlan] = []
    trunk = 0
    left = False  # the epoch before this one was on a branch
    for rung in rungs:
        branch_start = rung - cooldown_epochs(rung, schedule.cooldown_fraction)
        for epoch in range(trunk + 1, rung + 1):
            plans.append(
                EpochPlan(
                    step=len(plans) + 1,
                    epoch=epoch,
                    phase="trunk" if epoch <= branch_start else "cooldown",
                    rung=rung if epoch == rung else None,
                    branch=None if epoch <= branch_start else rung,
                    restore=left and epoch == trunk + 1,
                    keep=epoch == branch_start + 1 and rung != rungs[-1],
                    stage=stage_at(schedule.stages, epoch),
                )
            )
        trunk, left = branch_start, branch_start < rung
    return tuple(plans)


def learning_rate(plan: EpochPlan, progress: float, recipe: Recipe) -> float:
    """Return the learning rate when a share `progress` ∈ [0, 1] of the epoch has passed.

    It is the stage's peak times the minimum of 1, the warm-up (a line from 0 at the start of the
    stage) and the cooldown (a line to 0 at the end of the branch). A branch that begins within a
    warm-up therefore has the shape of a triangle.
    """
    schedule, stages = recipe.schedule, recipe.schedule.stages
    passed = plan.epoch - 1 + progress
    warmup = recipe.in_stage(plan.stage).schedule.warmup_epochs
    factor = 1.0
    if warmup > 0:
        factor = min(factor, (passed - stage_starts(stages)[plan.stage]) / warmup)
    if plan.branch is not None:
        cooldown = cooldown_epochs(plan.branch, schedule.cooldown_fraction)
        factor = min(factor, (plan.branch - passed) / cooldown)
    scale = stages[plan.stage].lr_scale if stages else 1.0
    return recipe.optimizer.peak_lr * scale * factor


def lookahead_step_size(plan: EpochPlan, progress: float, recipe: Recipe) -> float:
    """Return Lookahead's step size: with 1, the slow weights become the weights; with 0, they stay.

    Without `lookahead_decay` it is ½. With it, it is 1 on the trunk, which is the same for all
    rungs, and 1 − decay^interval · (epochs / rung)³ in a cooldown, so that the slow weights average
    over more and more steps. airbench uses the formula from the start; in the 23% of its schedule
    before the cooldown, it gives 0.99 or more. `progress` is described in `learning_rate`.
    """
    settings = recipe.optimizer
    if not settings.lookahead_decay:
        return 0.5
    if plan.branch is None:
        return 1.0
    share = (plan.epoch - 1 + progress) / plan.branch
    return 1.0 - float(settings.lookahead_decay**settings.lookahead) * share**3
