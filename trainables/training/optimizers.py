"""Optimizers: SGD, AdamW and Muon, with parameter groups and Lookahead."""

from typing import Any

from timm.optim import Lookahead, create_optimizer_v2  # type: ignore[attr-defined]
from torch import nn
from torch.optim import Optimizer

from trainables.hyperparameters import Optimization
from trainables.training.parameter_groups import parameter_groups

MUON_STEPS = 4
"""Newton-Schulz iterations; airbench94_muon has 3, timm 5."""


def make_optimizer(
    model: nn.Module, settings: Optimization, *, layer_decay: float = 1.0
) -> Optimizer:
    """Return SGD with Nesterov momentum, AdamW or Muon over the trainable parameters.

    trainables/training/parameter_groups.py decides which parameters are decayed, and the learning
    rate of each layer: `layer_decay` times the next layer's. `set_progress` sets the rates.

    Muon (Jordan, 2024) is timm's implementation, with convolutions as matrices [out, in·k²] and
    steps scaled to AdamW's root mean square (arXiv 2502.16982), which lets AdamW train the rest
    at the same rate: the first layer, the head, embeddings, gains and biases, as Muon's authors
    advise (github.com/KellerJordan/Muon). timm takes NAdamW, AdamW with Nesterov momentum;
    airbench94_muon has SGD instead, with a rate for the head and one for the biases.
    """
    name: str = settings.name
    if name == "sgd" and settings.momentum == 0:
        name = "momentum"  # timm's name for SGD without Nesterov, which needs momentum > 0
    more: dict[str, Any] = {"nesterov": True, "ns_steps": MUON_STEPS} if name == "muon" else {}
    optimizer: Optimizer = create_optimizer_v2(
        parameter_groups(model, settings, layer_decay=layer_decay),
        opt=name,
        lr=settings.peak_lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
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
