"""Optimizers, and a schedule whose every rung is a finished training.

A rung's score should say what that many epochs can do, so each rung is annealed: the
trunk runs at a constant rate, and the last epochs before a rung are a branch in which the
rate falls linearly to zero (warm-up, stable, decay: arXiv 2405.18392). A trial that goes
on puts the trunk back as it was where the branch began.

    rate   ┌───────┬────────────┬─────── … trunk
          ╱        │╲           │╲
         ╱         │ ╲ rung 3   │ ╲ rung 9
    epoch 0        1  3         5  9
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import nn
from torch.optim import Optimizer

from trainables.errors import SpecError
from trainables.recipe import Recipe

MUON_STEPS = 4
"""Newton-Schulz iterations; airbench94_muon has 3, timm 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochPlan:
    """One pass over the training images. Epochs and steps count from 1."""

    step: int
    """How many epochs will have been trained after this one, branches included."""
    epoch: int
    """The epoch of the schedule that ends with this one; at a rung's end, the rung."""
    phase: Literal["trunk", "cooldown"]
    rung: int | None
    """The rung that is scored at the end of this epoch."""
    branch: int | None
    """The rung to which this cooldown leads; none on the trunk."""
    restore: bool
    """The trunk is put back before this epoch."""
    keep: bool
    """The trunk is put aside before this epoch, because a later one restores it."""


def plan_epochs(rungs: Sequence[int], recipe: Recipe) -> tuple[EpochPlan, ...]:
    """Every epoch of a trial that is scored at `rungs` (rising; the last is recipe.epochs).

    Raises:
        SpecError: the rungs do not rise from 1 or more up to recipe.epochs.
    """
    if not rungs or rungs[0] < 1 or list(rungs) != sorted(set(rungs)):
        raise SpecError(f"rungs must be rising epoch counts, got {list(rungs)}")
    if rungs[-1] != recipe.epochs:
        raise SpecError(f"the last of rungs {list(rungs)} must be epochs = {recipe.epochs}")
    plans: list[EpochPlan] = []
    trunk = 0
    for rung in rungs:
        start = rung - cooldown_epochs(rung, recipe.cooldown_fraction)
        for epoch in range(trunk + 1, rung + 1):
            plans.append(
                EpochPlan(
                    step=len(plans) + 1,
                    epoch=epoch,
                    phase="trunk" if epoch <= start else "cooldown",
                    rung=rung if epoch == rung else None,
                    branch=None if epoch <= start else rung,
                    restore=bool(plans) and epoch == trunk + 1,
                    keep=epoch == start + 1 and rung != rungs[-1],
                )
            )
        trunk = start
    return tuple(plans)


def cooldown_epochs(rung: int, fraction: float) -> int:
    """Epochs of the cooldown that leads to `rung`: that share, rounded up, at least one."""
    # 0.07 × 100 is 7.000000000000001 in binary; that is seven epochs, not eight.
    return max(1, math.ceil(fraction * rung - 1e-9))


def learning_rate(plan: EpochPlan, progress: float, recipe: Recipe) -> float:
    """The rate when `progress` ∈ [0, 1] of the epoch `plan` has passed.

    The peak times the least of: 1, the warm-up's line, the line to zero at the branch's
    end. A branch that begins within the warm-up is therefore a triangle.
    """
    passed = plan.epoch - 1 + progress
    factor = 1.0
    if recipe.warmup_epochs > 0:
        factor = min(factor, passed / recipe.warmup_epochs)
    if plan.branch is not None:
        factor = min(
            factor, (plan.branch - passed) / cooldown_epochs(plan.branch, recipe.cooldown_fraction)
        )
    return peak_learning_rate(recipe) * factor


def peak_learning_rate(recipe: Recipe) -> float:
    """The rate of the trunk: for SGD linear in the batch size, for the others as given."""
    if recipe.optimizer == "sgd":
        return recipe.lr_per_1024 * recipe.batch_size / 1024
    return recipe.adamw_lr if recipe.optimizer == "adamw" else recipe.muon_lr


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """SGD with Nesterov momentum, AdamW or Muon, over the parameters that require gradients.

    Biases and one-dimensional parameters (batch normalization) are not decayed; Muon leaves
    them to NAdam. Muon (Jordan, 2024) is timm's, with convolutions as matrices [out, in·k²]
    and steps scaled to AdamW's root mean square (arXiv 2502.16982).
    """
    name: str = recipe.optimizer
    if name == "sgd" and recipe.momentum == 0:
        name = "momentum"  # timm's name for SGD without Nesterov's form, which needs momentum
    more: dict[str, Any] = {"nesterov": True, "ns_steps": MUON_STEPS} if name == "muon" else {}
    optimizer: Optimizer = create_optimizer_v2(
        model,
        opt=name,
        lr=peak_learning_rate(recipe),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        **more,
    )
    return optimizer
