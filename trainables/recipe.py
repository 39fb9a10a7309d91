"""The recipe: every hyperparameter of one training, with its unit and its default."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from trainables.errors import SpecError
from trainables.parsing import from_mapping, to_mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a training, except its data, its seed and its numerics."""

    model: str = "convnet"
    """`convnet`, our family, or `timm:NAME` for any classifier timm can build."""
    width: int = 32
    """Channels of the first block; the three blocks have width × (1, 2, 4)."""
    depth: int = 2
    """3×3 convolutions per block; the third and later ones are residual."""
    block: Literal["airbench", "plain"] = "airbench"
    """`airbench`: conv, pool, BN, activation. `plain`: conv, BN, activation, pool, which
    folds and quantizes well."""
    activation: Literal["gelu", "relu", "silu", "mish", "hardswish"] = "gelu"
    attention: Literal["none", "se", "eca", "cbam"] = "none"
    """Attention at the end of each block."""
    whitening: bool = True
    """Start with a frozen 2×2 convolution that whitens patches of the training images."""
    dropout: float = 0.0
    """Probability of zeroing a feature before the classifier."""

    epochs: int = 27
    """Length of the whole schedule, in passes over the training images."""
    batch_size: int = 512
    """Images a step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`sgd` has Nesterov momentum."""
    lr_per_1024: float = 1.2
    """SGD's peak learning rate at 1,024 images a step (mean loss); linear in batch_size."""
    adamw_lr: float = 2e-3
    """AdamW's peak learning rate, whatever the batch size."""
    momentum: float = 0.85
    """SGD's momentum."""
    weight_decay: float = 1e-3
    """L2 penalty (SGD) or decoupled decay (AdamW) on convolution and linear weights."""
    warmup_epochs: float = 1.0
    """Epochs of linear warm-up at the start of the trunk."""
    cooldown_fraction: float = 0.34
    """Share of a rung's epochs over which the rate falls linearly to zero."""
    label_smoothing: float = 0.0
    """Probability mass spread evenly over all classes."""
    ema_decay: float = 0.98
    """Decay per step of the moving average of the weights, which is what is scored; 0
    scores the weights themselves."""

    flip: bool = True
    """Mirror half of the images, left to right."""
    translate: int = 2
    """Largest shift in each direction, in pixels; borders are reflected."""
    cutout: int = 0
    """Side of the grey square, in pixels."""
    mixup_alpha: float = 0.0
    """Beta parameter of MixUp; 0 switches it off."""
    cutmix_alpha: float = 0.0
    """Beta parameter of CutMix; 0 switches it off."""
    mix_probability: float = 0.5
    """Share of images that are mixed when MixUp or CutMix is on."""

    def __post_init__(self) -> None:
        """Refuse values no training can use, naming field, value and range."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise SpecError(f"{name} must lie in [{low}, {high}], got {value!r}")
        if self.model != "convnet" and not re.match("timm:.", self.model):
            raise SpecError(f"model must be 'convnet' or 'timm:NAME', got {self.model!r}")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, where: str = "recipe") -> "Recipe":
        """A recipe from plain values; unknown keys and impossible values are errors."""
        return from_mapping(cls, mapping, where=where)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        mapping: dict[str, Any] = to_mapping(self)
        return mapping

    def with_values(self, **values: Any) -> "Recipe":
        """A copy with some fields replaced."""
        return replace(self, **values)


_RANGES: dict[str, tuple[float, float]] = {
    "width": (1, 4096),
    "depth": (1, 8),
    "dropout": (0.0, 0.95),
    "epochs": (1, 100_000),
    "batch_size": (1, 1_000_000),
    "lr_per_1024": (0.0, 1000.0),
    "adamw_lr": (0.0, 10.0),
    "momentum": (0.0, 0.999),
    "weight_decay": (0.0, 10.0),
    "warmup_epochs": (0.0, 100_000.0),
    "cooldown_fraction": (0.0, 1.0),
    "label_smoothing": (0.0, 0.9),
    "ema_decay": (0.0, 0.99999),
    "translate": (0, 4096),
    "cutout": (0, 4096),
    "mixup_alpha": (0.0, 100.0),
    "cutmix_alpha": (0.0, 100.0),
    "mix_probability": (0.0, 1.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """How a training computes: chosen by a probe once, then frozen in the record."""

    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:N`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 means autocast: the weights stay float32."""
    layout: Literal["contiguous", "channels_last"] = "channels_last"
    threads: int = 1
    """Intra-op threads of torch on the CPU; sums are split by it, so replay needs it."""
