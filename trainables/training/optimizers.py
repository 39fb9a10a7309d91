"""Optimizers: SGD, AdamW and Muon, with parameter groups and Lookahead."""

from functools import partial
from typing import Any

from timm.optim import (  # type: ignore[attr-defined]
    Lookahead,
    create_optimizer_v2,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from trainables.hyperparameters import Optimization

MUON_STEPS = 4
"""Newton-Schulz iterations; airbench94_muon has 3, timm 5."""


def make_optimizer(
    model: nn.Module, settings: Optimization, *, layer_decay: float = 1.0
) -> Optimizer:
    """Return SGD with Nesterov momentum, AdamW or Muon over the trainable parameters.

    Weight decay skips biases and one-dimensional parameters (batch normalization); Muon leaves
    them to NAdam. Muon (Jordan, 2024) is timm's implementation, with convolutions as matrices
    [out, in·k²] and steps scaled to AdamW's root mean square (arXiv 2502.16982). The learning
    rate of each layer is `layer_decay` times that of the next layer. `set_progress` sets the
    rates.
    """
    name: str = settings.name
    if name == "sgd" and settings.momentum == 0:
        name = "momentum"  # timm's name for SGD without Nesterov, which needs momentum > 0
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
    """Set the learning rate, and the number of steps of the schedule already taken.

    A cooldown branch counts from the step where it left the trunk, so that Lookahead
    synchronizes at the same steps however often a training is resumed.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
        if "lookahead_step" in group:
            group["lookahead_step"] = steps


def _groups(
    model: nn.Module, *, settings: Optimization, layer_decay: float
) -> list[dict[str, Any]]:
    """Return timm's groups with and without decay; norm biases are groups if their rate differs."""
    if layer_decay < 1:
        # timm's networks and Quorum's define in group_matcher which parameters form a layer.
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
    scaled = []
    for group in groups:
        chosen = [p for p in group["params"] if id(p) in biases]
        group["params"] = [p for p in group["params"] if id(p) not in biases]
        scale = group.get("lr_scale", 1.0) * settings.bias_lr_scale
        scaled.append({**group, "params": chosen, "lr_scale": scale})
    return [group for group in (*groups, *scaled) if group["params"]]
