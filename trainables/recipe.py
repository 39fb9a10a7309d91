"""The recipe: every hyperparameter of one training, with its unit and its default."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from common.errors import SpecError
from common.parsing import from_mapping, to_mapping
from common.plugins import is_import_path
from trainables.training.stages import Stage, check_stages, fewest_epochs

HUB = "hub"
"""The value of `pretrained` that means timm's own weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a training, except its data, its seed and its numerics."""

    model: str = "convnet"
    """`convnet`, our family; `wrn-DEPTH-K`, a wide residual net; `timm:NAME` for any classifier
    timm can build; or the import path `module:attribute` of your own, see
    trainables/nets/custom.py."""
    stem: Literal["own", "small"] = "own"
    """`small` starts a ResNet of timm with a 3×3 convolution and no pooling, for images of about
    32 px; `own` leaves it as it is."""
    width: int = 32
    """Channels of the first block; the three blocks have width × (1, middle, 4)."""
    middle: int = 2
    """Channels of the second block, as a multiple of the first's; airbench94 has 4."""
    depth: int = 2
    """3×3 convolutions per block; the third and later ones are residual."""
    block: Literal["airbench", "plain", "early"] = "airbench"
    """Where a block pools. `airbench`: after its first convolution, before BN. `plain`: at its
    end, so that BN folds into the convolutions, which quantizes well. `early`: after the first
    activation, which folds too and costs half as much."""
    activation: Literal["gelu", "relu", "silu", "mish", "hardswish"] = "gelu"
    attention: Literal["none", "se", "eca", "cbam"] = "none"
    """Attention at the end of each block."""
    init: Literal["dirac", "default"] = "dirac"
    """`dirac`: convolutions of the convnet start by copying their inputs; `default`: as torch
    has it."""
    whitening: bool = True
    """Start with a frozen 2×2 convolution that whitens patches of the training images."""
    whitening_epochs: int = 3
    """Epochs in which the whitening's bias learns, as in airbench. Afterwards no gradient has to
    reach the first convolution's input, which saves a tenth of a small net's step."""
    pretrained: str = ""
    """Where the net's first weights come from, all but its last layer's: `hub` for those that
    timm knows, or a .safetensors file of a trial or of timm's; empty for none."""
    dropout: float = 0.0
    """Probability of zeroing a feature before the classifier."""

    epochs: int = 27
    """Length of the whole schedule, in passes over the training images."""
    batch_size: int = 512
    """Images a step; all of them, where there are fewer."""
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    """`sgd` has Nesterov momentum; `muon` too, its steps are orthogonalized."""
    lr_per_1024: float = 1.2
    """SGD's peak learning rate at 1,024 images a step (mean loss); linear in batch_size."""
    adamw_lr: float = 2e-3
    """AdamW's peak learning rate, whatever the batch size."""
    muon_lr: float = 1e-2
    """Muon's peak learning rate, whatever the batch size, on the scale of AdamW's: a step has
    the same root mean square."""
    momentum: float = 0.85
    """SGD's and Muon's momentum."""
    bias_lr_scale: float = 1.0
    """Rate of batch normalization's biases, as a multiple of the others'; airbench has 64."""
    lookahead: int = 0
    """Every so many steps the weights go half of the way back to where they were then
    (Lookahead, arXiv 1907.08610); 0 switches it off."""
    weight_decay: float = 1e-3
    """L2 penalty (SGD) or decoupled decay (AdamW, Muon) on convolution and linear weights."""
    warmup_epochs: float = 1.0
    """Epochs of linear warm-up at the start of the trunk."""
    cooldown_fraction: float = 0.34
    """Share of a rung's epochs over which the rate falls linearly to zero."""
    label_smoothing: float = 0.0
    """Probability mass spread evenly over all classes."""
    class_weights: Literal["none", "balanced", "sqrt"] = "none"
    """Weight of a label's loss by its class: `balanced` is inverse to the class's number of
    training images, `sqrt` to the root of it. The mean over training images is 1."""
    ema_decay: float = 0.98
    """Decay per step of the moving average of the weights, which is what is scored; 0
    scores the weights themselves."""

    augment: Literal[
        "none",
        "standard",
        "colour",
        "affine",
        "trivialaugment",
        "trivialaugment_wide",
        "randaugment",
    ] = "standard"
    """`none` switches off everything below. `standard` is what stands below and no more; the
    others add a policy, drawn per image, before it: see trainables/augmentation/policies.py."""
    augment_magnitude: float = 9.0
    """Strength of `colour`, `affine` and `randaugment`, from 0 (nothing) to 30; the
    TrivialAugments draw their own."""
    augment_ops: int = 2
    """Operations that `randaugment` does to each image."""
    flip: bool = True
    """Mirror half of the images, left to right."""
    alternating_flip: bool = False
    """Draw once which images are mirrored, then turn each over in every epoch, as airbench does:
    two epochs in a row show every image and its mirror image."""
    translate: int = 2
    """Largest shift in each direction, in pixels; borders are reflected."""
    cutout: int = 0
    """Side of the grey square, in pixels."""
    erase_probability: float = 0.0
    """Share of images in which a rectangle of 2% to 33% of the area is painted over."""
    mixup_alpha: float = 0.0
    """Beta parameter of MixUp; 0 switches it off."""
    cutmix_alpha: float = 0.0
    """Beta parameter of CutMix; 0 switches it off."""
    mix_probability: float = 0.5
    """Share of images that are mixed when MixUp or CutMix is on."""

    rotation_weight: float = 0.0
    """Weight of an auxiliary task's loss: by how many quarter turns an image was turned. See
    trainables/nets/auxiliary_heads.py."""
    superclass_weight: float = 0.0
    """Weight of an auxiliary task's loss: to which group of classes an image belongs."""
    superclasses: tuple[tuple[str, ...], ...] = ()
    """Groups of class names, as in [[bird, cat], [ship, truck]]; classes that none names are one
    more group."""

    stages: tuple[Stage, ...] = ()
    """Parts of the training with values of their own; see trainables/training/stages.py."""

    tta: Literal["none", "mirror", "mirror_translate"] = "none"
    """Views whose logits are averaged when predicting: the image; and its mirror image, at twice
    the cost; and both of these moved by a pixel up left and down right, at six times."""

    def __post_init__(self) -> None:
        """Refuse values no training can use, naming field, value and range."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise SpecError(f"{name} must lie in [{low}, {high}], got {value!r}")
        check_stages(self.stages)
        for stage in self.stages:
            Recipe.from_mapping(stage.values, where="stages: values")
        known = self.model == "convnet" or re.match(r"timm:.|wrn-\d+-\d+$", self.model)
        if not (known or is_import_path(self.model)):
            raise SpecError(
                "model must be 'convnet', 'wrn-DEPTH-K', 'timm:NAME' or an import path "
                f"'module:attribute', got {self.model!r}"
            )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, where: str = "recipe") -> "Recipe":
        """A recipe from plain values; unknown keys and impossible values are errors."""
        return from_mapping(cls, mapping, where=where)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        mapping: dict[str, Any] = to_mapping(self)
        return mapping

    def in_stage(self, index: int) -> "Recipe":
        """What holds in a stage: a recipe without stages."""
        if not self.stages:
            return self
        return replace(self, **self.stages[index].values, stages=())

    def with_values(self, **values: Any) -> "Recipe":
        """A copy with some fields replaced."""
        return replace(self, **values)


def check_length(recipe: Recipe, *, where: str) -> None:
    """Refuse a schedule that ends before the recipe's last stage begins.

    `where` names what sets the schedule's length, for the message.
    """
    fewest = fewest_epochs(recipe.stages)
    if recipe.epochs < fewest:
        raise SpecError(
            f"stages: those before the last take {fewest - 1} epochs and the whole schedule has "
            f"{recipe.epochs}; raise {where}, or shorten stages"
        )


_RANGES: dict[str, tuple[float, float]] = {
    "width": (1, 4096),
    "middle": (1, 16),
    "depth": (1, 8),
    "whitening_epochs": (0, 100_000),
    "dropout": (0.0, 0.95),
    "epochs": (1, 100_000),
    "batch_size": (1, 1_000_000),
    "lr_per_1024": (0.0, 1000.0),
    "adamw_lr": (0.0, 10.0),
    "muon_lr": (0.0, 10.0),
    "momentum": (0.0, 0.999),
    "bias_lr_scale": (0.0, 10_000.0),
    "lookahead": (0, 1_000_000),
    "weight_decay": (0.0, 10.0),
    "warmup_epochs": (0.0, 100_000.0),
    "cooldown_fraction": (0.0, 1.0),
    "label_smoothing": (0.0, 0.9),
    "ema_decay": (0.0, 0.99999),
    "augment_magnitude": (0.0, 30.0),
    "augment_ops": (1, 8),
    "rotation_weight": (0.0, 100.0),
    "superclass_weight": (0.0, 100.0),
    "translate": (0, 4096),
    "cutout": (0, 4096),
    "erase_probability": (0.0, 1.0),
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
