"""Stages of a training, e.g. first the head alone and then all layers, with their own values.

    recipe:
      pretrained: backbone.safetensors
      stages:
        - {epochs: 4, train: head, values: {augment: none}}
        - {lr_scale: 0.1, layer_decay: 0.75, values: {mixup_alpha: 0.0}}

Stages follow each other along the schedule's epochs; the last stage has all remaining epochs. A
recipe without stages has a single stage that trains all layers.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

from common.errors import SpecError

STAGE_KEYS = frozenset(
    {
        *("augment", "augment_magnitude", "augment_ops", "flip", "alternating_flip", "translate"),
        *("cutout", "erase_probability", "mixup_alpha", "cutmix_alpha", "mix_probability"),
        *("crop_scale", "crop_ratio"),
        *("label_smoothing", "weight_decay", "momentum", "clip_grad_norm", "sam_rho"),
        "warmup_epochs",
    }
)
"""Keys that a stage may change; the network, the steps and the scores are fixed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of a training with its own values."""

    epochs: int | None = None
    """Length in epochs; None for the last stage, which has the remaining epochs."""
    train: Literal["all", "head"] = "all"
    """`head` trains only the last linear layer and freezes everything below it, including the
    statistics of batch normalization."""
    lr_scale: float = 1.0
    """Peak learning rate of the stage, as a multiple of the recipe's."""
    layer_decay: float | None = None
    """Learning rate of each layer divided by the next layer's; None for the recipe's."""
    values: dict[str, Any] = field(default_factory=dict, hash=False)
    """Recipe values that differ in this stage; STAGE_KEYS has the keys that may."""

    def __post_init__(self) -> None:
        """Refuse lengths and rates out of range, and keys that a stage cannot change."""
        if self.epochs is not None and self.epochs < 1:
            raise SpecError(f"epochs must be at least 1, got {self.epochs}")
        if not 0 < self.lr_scale <= 1000:
            raise SpecError(f"lr_scale must lie in (0, 1000], got {self.lr_scale!r}")
        if self.layer_decay is not None and not 1e-6 <= self.layer_decay <= 1:
            raise SpecError(f"layer_decay must lie in [1e-06, 1], got {self.layer_decay!r}")
        check_values(self.values)


def check_values(values: Mapping[str, Any]) -> None:
    """Refuse recipe values that must not change during a training."""
    for key in values:
        if key not in STAGE_KEYS:
            raise SpecError(
                f"a stage cannot change {key!r}; it can change {', '.join(sorted(STAGE_KEYS))}"
            )


def check_stages(stages: tuple[Stage, ...]) -> None:
    """Refuse a last stage with a length, and any other stage without one."""
    for number, stage in enumerate(stages, start=1):
        last = number == len(stages)
        if last and stage.epochs is not None:
            raise SpecError(
                f"stages: the last one has all remaining epochs; remove its epochs: {stage.epochs}"
            )
        if not last and stage.epochs is None:
            raise SpecError(f"stages: stage {number} of {len(stages)} needs its number of epochs")


def fewest_epochs(stages: tuple[Stage, ...]) -> int:
    """Return the length of the shortest schedule with all stages: one epoch in the last stage."""
    return stage_starts(stages)[-1] + 1


def stage_at(stages: tuple[Stage, ...], epoch: int) -> int:
    """Return the index of the stage to which an epoch (from 1) belongs; 0 for epoch 0."""
    return max(0, bisect_left(stage_starts(stages), epoch) - 1)


def stage_starts(stages: tuple[Stage, ...]) -> list[int]:
    """Return the number of epochs before each stage."""
    return list(accumulate((stage.epochs or 0 for stage in stages[:-1]), initial=0))
