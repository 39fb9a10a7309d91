"""Optimizers: SGD, AdamW, Muon and those of timm, with parameter groups and Lookahead."""

import difflib
import re
from typing import Any

from timm.optim import (  # type: ignore[attr-defined]
    Lookahead,
    create_optimizer_v2,
    get_optimizer_class,
    list_optimizers,
)
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from common.errors import SpecError
from trainables.hyperparameters import Optimization
from trainables.training.muon_sgd import MuonSgd
from trainables.training.parameter_groups import parameter_groups

TIMM = "timm:"
"""Prefix of the names of timm's optimizers in a recipe."""

_EXCLUDED = re.compile(r"bnb|fused|kron|adahessian")
"""Optimizers that need other packages, draw from a random stream of their own, which a resumed
training would restart, or need second derivatives."""

_UNSUPPORTED = "needs another package, second derivatives or random numbers that cannot be resumed"

MUON_STEPS = 4
"""Newton-Schulz iterations; airbench94_muon uses 3, timm 5."""

_FUSED = (SGD, Adam, AdamW)
"""torch's optimizers with a fused step on GPUs; those of timm have none."""


def make_optimizer(
    model: nn.Module, settings: Optimization, *, fused: bool | None = None
) -> Optimizer:
    """Return the optimizer of a recipe over the trainable parameters: ours or one of timm's.

    `fused` selects torch's fused optimizers, where they exist: a few kernels for all parameters.
    The default is on CUDA only, because on the CPU fused steps round differently, and older records
    could not be replayed.

    trainables/training/parameter_groups.py decides which parameters are decayed, and the learning
    rate of each layer. `set_progress` sets the rates.

    Muon (Jordan, 2024) is timm's implementation, with convolutions as matrices [out, in·k²] and
    steps scaled to AdamW's root mean square (arXiv 2502.16982), which lets AdamW train the rest
    at the same rate: the first layer, the head, embeddings, gains and biases, as Muon's authors
    advise (github.com/KellerJordan/Muon). For the rest timm uses NAdamW, AdamW with Nesterov
    momentum, and `muon_sgd`, in trainables/training/muon_sgd.py, SGD, as airbench94_muon does.
    """
    check_optimizer(settings)
    groups = parameter_groups(model, settings)
    optimizer: Optimizer
    if settings.name == "muon_sgd":
        optimizer = MuonSgd(groups, lr=settings.peak_lr, momentum=settings.momentum)
    else:
        on_cuda = next(model.parameters()).is_cuda
        optimizer = _timm_optimizer(groups, settings, fused=on_cuda if fused is None else fused)
    if settings.lookahead:
        optimizer = Lookahead(optimizer, k=settings.lookahead)  # type: ignore[no-untyped-call]
    return optimizer


def _timm_optimizer(
    groups: list[dict[str, Any]], settings: Optimization, *, fused: bool
) -> Optimizer:
    name = settings.name.removeprefix(TIMM)
    more: dict[str, Any] = {}
    if settings.name == "sgd" and settings.momentum == 0:
        name = "momentum"  # timm's name for SGD without Nesterov, which needs momentum > 0
    elif settings.name == "muon":
        more = {"nesterov": True, "ns_steps": MUON_STEPS}
    if fused and get_optimizer_class(name, bind_defaults=False) in _FUSED:
        more["fused"] = True
    optimizer: Optimizer = create_optimizer_v2(
        groups,
        opt=name,
        lr=settings.peak_lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        **more,
    )
    return optimizer


def check_optimizer(settings: Optimization) -> None:
    """Refuse an optimizer that timm does not have, or that cannot be resumed.

    Raises:
        SpecError: the message names the nearest one.
    """
    name = settings.name.removeprefix(TIMM)
    if settings.name == name or name in timm_optimizers():
        return
    near = ", ".join(difflib.get_close_matches(name, timm_optimizers(), n=3, cutoff=0.0))
    reason = _UNSUPPORTED if name in list_optimizers() else "is not one of timm's"
    raise SpecError(f"optimizer {settings.name!r} {reason}; the nearest names are {near}")


def timm_optimizers() -> list[str]:
    """Return the names that may follow `timm:`."""
    return [str(name) for name in list_optimizers() if not _EXCLUDED.match(str(name))]


def set_progress(optimizer: Optimizer, *, rate: float, steps: int, lookahead: float = 0.5) -> None:
    """Set the learning rate, the steps of the schedule already taken, and Lookahead's step size.

    In a cooldown branch the count goes on from the step at which it left the trunk, so that
    Lookahead synchronizes at the same steps however often a training is resumed.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
        if "lookahead_step" in group:
            group["lookahead_step"] = steps
            group["lookahead_alpha"] = lookahead
