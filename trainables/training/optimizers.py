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
from functools import partial
from typing import Any, Literal

from timm.optim import (  # type: ignore[attr-defined]
    Lookahead,
    create_optimizer_v2,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from common.errors import SpecError
from trainables.hyperparameters import Optimization
from trainables.recipe import Recipe
from trainables.stages import stage_at, starts

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
    stage: int = 0
    """Index of the recipe's stage."""


def plan_epochs(rungs: Sequence[int], recipe: Recipe) -> tuple[EpochPlan, ...]:
    """Every epoch of a trial that is scored at `rungs` (rising; the last is the recipe's epochs).

    Raises:
        SpecError: the rungs do not rise from 1 or more up to the recipe's epochs.
    """
    if not rungs or rungs[0] < 1 or list(rungs) != sorted(set(rungs)):
        raise SpecError(f"rungs must be rising epoch counts, got {list(rungs)}")
    if rungs[-1] != recipe.schedule.epochs:
        raise SpecError(
            f"the last of rungs {list(rungs)} must be epochs = {recipe.schedule.epochs}"
        )
    plans: list[EpochPlan] = []
    trunk = 0
    for rung in rungs:
        start = rung - cooldown_epochs(rung, recipe.schedule.cooldown_fraction)
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
                    stage=stage_at(recipe.schedule.stages, epoch),
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

    The stage's peak times the least of: 1, the line of the warm-up with which each stage
    begins, the line to zero at the branch's end. A branch that begins within a warm-up is
    therefore a triangle.
    """
    passed = plan.epoch - 1 + progress
    here = recipe.in_stage(plan.stage).schedule
    factor = 1.0
    if here.warmup_epochs > 0:
        factor = min(
            factor, (passed - starts(recipe.schedule.stages)[plan.stage]) / here.warmup_epochs
        )
    if plan.branch is not None:
        factor = min(
            factor,
            (plan.branch - passed)
            / cooldown_epochs(plan.branch, recipe.schedule.cooldown_fraction),
        )
    scale = recipe.schedule.stages[plan.stage].lr_scale if recipe.schedule.stages else 1.0
    return recipe.optimizer.peak_lr * scale * factor


def make_optimizer(
    model: nn.Module, settings: Optimization, *, layer_decay: float = 1.0
) -> Optimizer:
    """SGD with Nesterov momentum, AdamW or Muon, over the parameters that require gradients.

    Biases and one-dimensional parameters (batch normalization) are not decayed; Muon leaves
    them to NAdam. Muon (Jordan, 2024) is timm's, with convolutions as matrices [out, in·k²]
    and steps scaled to AdamW's root mean square (arXiv 2502.16982). Each layer has
    `layer_decay` times the rate of the next one. Rates are set by `set_progress`.
    """
    name: str = settings.name
    if name == "sgd" and settings.momentum == 0:
        name = "momentum"  # timm's name for SGD without Nesterov's form, which needs momentum
    more: dict[str, Any] = {"nesterov": True, "ns_steps": MUON_STEPS} if name == "muon" else {}
    optimizer: Optimizer = create_optimizer_v2(
        model,
        opt=name,
        lr=settings.peak_lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        param_group_fn=partial(_groups, settings=settings, layer_decay=layer_decay),
        **more,
    )
    if settings.lookahead:
        optimizer = Lookahead(optimizer, k=settings.lookahead)  # type: ignore[no-untyped-call]
    return optimizer


def set_progress(optimizer: Optimizer, *, rate: float, steps: int) -> None:
    """Before a step: the learning rate, and how many steps of the schedule came before.

    A branch counts from where it left the trunk, so that Lookahead looks back at the same
    steps however often a training was put down.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
        if "lookahead_step" in group:
            group["lookahead_step"] = steps


def _groups(
    model: nn.Module, *, settings: Optimization, layer_decay: float
) -> list[dict[str, Any]]:
    """The groups of timm, with and without decay; biases of norms apart where theirs differs."""
    if layer_decay < 1:
        # By the net's own layers: timm's nets, and ours, say which parameters are one layer.
        net = getattr(model, "net", model)
        groups: list[dict[str, Any]] = param_groups_layer_decay(
            net, weight_decay=settings.weight_decay, layer_decay=layer_decay
        )
    else:
        groups = param_groups_weight_decay(model, settings.weight_decay)
    if settings.bias_lr_scale == 1:
        return groups
    norms = (m for m in model.modules() if isinstance(m, _BatchNorm) and m.affine)
    biases = {id(norm.bias) for norm in norms}
    apart = []
    for group in groups:
        chosen = [p for p in group["params"] if id(p) in biases]
        group["params"] = [p for p in group["params"] if id(p) not in biases]
        scale = group.get("lr_scale", 1.0) * settings.bias_lr_scale
        apart.append({**group, "params": chosen, "lr_scale": scale})
    return [group for group in (*groups, *apart) if group["params"]]
