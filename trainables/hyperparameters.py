"""The hyperparameters of a training by topic, with their units, defaults and ranges.

`_number(32, 1, 4096)` declares the default 32 and the range [1, 4096]. A field's key in YAML
files and records is its name, unless it declares another `key`.
"""

import difflib
import re
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from common.errors import SpecError
from common.plugins import is_import_path
from trainables.stages import Stage

HUB = "hub"
"""The value of `pretrained` that selects the weights on timm's hub."""

PACKAGE = "package"
"""The value of `pretrained` that selects the weights in an installed Python package."""

LENGTHS = ("translate", "cutout")
"""Keys of lengths: shares of the image's side below 1, whole pixels from 1."""


def length_in_pixels(length: float, image_size: int) -> int:
    """Return a length in whole pixels; a share counts the side of `image_size` pixels."""
    return int(length) if length >= 1 else round(length * image_size)


def _number(default: float, low: float, high: float, *, key: str | None = None) -> Any:
    """Declare a field that must lie in [low, high]; `key` is its key in YAML files."""
    return field(default=default, metadata={"range": (low, high), "key": key})


def _keyed(default: str, key: str) -> Any:
    """Declare a field whose key in YAML files is `key`."""
    return field(default=default, metadata={"key": key})


class _Section:
    """A part of a recipe; its numbers are checked when it is created."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Refuse a number outside its range; the error names key, range and value."""
        for item in fields(self):  # type: ignore[arg-type]
            low, high = item.metadata.get("range", (None, None))
            if low is not None and not low <= getattr(self, item.name) <= high:
                key, value = item.metadata["key"] or item.name, getattr(self, item.name)
                raise SpecError(f"{key} must lie in [{low}, {high}], got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture(_Section):
    """The network: its shape, its initial weights and its views at prediction time."""

    model: str = "convnet"
    """`convnet`, the network of trainables/nets/convnet.py; `wrn-DEPTH-K`, a wide residual
    network; `timm:NAME`, any classifier in timm; or the import path `module:attribute` of a
    custom network, see trainables/nets/custom.py."""
    family: str = ""
    """Name of the sweep's family that the recipe belongs to; only a label."""
    input_size: int = _number(0, 0, 1024)
    """Side in pixels to which the network resizes its images, bilinearly and antialiased; 0 keeps
    the data set's size. Augmentation comes before."""
    stem: Literal["own", "small"] = "own"
    """`small` gives a ResNet of timm a first layer of 3×3 convolution without pooling, for images
    of about 32 px; `own` keeps the model's stem."""
    width: int = _number(32, 1, 4096)
    """Channels of the first block; the three blocks have width × (1, middle, 4) channels."""
    middle: int = _number(2, 1, 16)
    """Channels of the second block, as a multiple of the first's; airbench94 has 4."""
    depth: int = _number(2, 1, 8)
    """3×3 convolutions per block; the third and later ones are residual."""
    block: Literal["airbench", "plain", "early"] = "airbench"
    """Position of the pooling in a block. `airbench`: after its first convolution, before BN.
    `plain`: at its end, so that BN folds into the convolutions, which quantizes well. `early`:
    after the first activation, where BN folds too, at half the cost."""
    activation: Literal["gelu", "relu", "silu", "mish", "hardswish"] = "gelu"
    attention: Literal["none", "se", "eca", "cbam"] = "none"
    """Attention at the end of each block."""
    init: Literal["dirac", "default"] = "dirac"
    """`dirac`: convolutions of the convnet are initialized to copy their inputs; `default`: as
    torch initializes them."""
    whitening: bool = True
    """Make the first layer a frozen 2×2 convolution that whitens patches of the training images."""
    whitening_epochs: int = _number(3, 0, 100_000)
    """Epochs in which the bias of the whitening is trained, as in airbench. Afterwards no gradient
    has to reach the first convolution's input, which saves a tenth of a small network's step."""
    pretrained: str = ""
    """Source of the initial weights of all layers except the last: `package` for an installed
    Python package, see trainables/initial_weights.py; `hub` for timm's hub; the path of a
    .safetensors file from a trial or from timm, or of a .pth, .pt or .bin file with timm's
    parameter names; empty for random weights."""
    dropout: float = _number(0.0, 0.0, 0.95)
    """Dropout probability: before the classifier in the convnet, between a block's convolutions in
    a wide residual network, and `drop_rate` of timm's models."""
    drop_path: float = _number(0.0, 0.0, 0.95)
    """Largest probability of skipping a residual branch for an image in training (stochastic
    depth, arXiv 1603.09382); it rises linearly from the first branch to the last. For wide
    residual networks, custom ones that read it, and those of timm that have it."""
    tta: Literal["none", "mirror", "mirror_translate"] = "none"
    """Views whose logits are averaged in predictions (test-time augmentation). `none`: the image.
    `mirror`: the image and its mirror image, at twice the cost. `mirror_translate`: these two, and
    both shifted by one pixel up left and down right, at six times the cost."""

    def __post_init__(self) -> None:
        """Refuse a number outside its range, and a `model` of none of these forms."""
        _Section.__post_init__(self)
        built_in = self.model == "convnet" or re.match(r"timm:.|wrn-\d+-\d+$", self.model)
        if not (built_in or is_import_path(self.model)):
            raise SpecError(
                "model must be 'convnet', 'wrn-DEPTH-K', 'timm:NAME' or an import path "
                f"'module:attribute', got {self.model!r}"
            )

    @property
    def prediction_work(self) -> "Architecture":
        """The same network without its label and without what acts in training only.

        Networks with equal values predict equally fast and have files of one size.
        """
        return replace(
            self.training_work, tta=self.tta, pretrained="", init="dirac", whitening_epochs=0
        )

    @property
    def training_work(self) -> "Architecture":
        """The same network without its label, noise and views: equal values train equally fast."""
        return replace(self, family="", dropout=0.0, drop_path=0.0, tta="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimization(_Section):
    """The optimizer and the batch size.

    Each optimizer has its own learning rate, because their scales differ and a sweep may search
    over optimizers.
    """

    batch_size: int = _number(512, 1, 1_000_000)
    """Images per step; all training images if there are fewer."""
    name: str = _keyed("sgd", "optimizer")
    """`sgd`, `adamw`, `muon`, `muon_sgd`, or `timm:NAME` for any other optimizer of timm's factory,
    e.g. `timm:lion`. `sgd` and `muon` use Nesterov momentum; `muon` orthogonalizes its steps.
    `muon_sgd` is airbench's: hidden matrices by Muon, everything else by SGD at SGD's rate."""
    lr_per_1024: float = _number(1.2, 0.0, 1000.0)
    """SGD's peak learning rate for 1,024 images per step (mean loss); it scales with batch_size."""
    adamw_lr: float = _number(2e-3, 0.0, 10.0)
    """AdamW's peak learning rate at any batch size."""
    muon_lr: float = _number(1e-2, 0.0, 10.0)
    """Muon's peak learning rate at any batch size, on AdamW's scale: its steps have the same root
    mean square."""
    muon_sgd_lr: float = _number(0.24, 1e-6, 10.0)
    """Peak length of a step of `muon_sgd` on a hidden matrix, as a share of the matrix's norm
    where all singular values are alike."""
    timm_lr: float = _number(1e-3, 0.0, 100.0)
    """Peak learning rate of `timm:NAME` at any batch size. Optimizers differ in scale: Lion's is 3
    to 10 times lower than AdamW's (arXiv 2302.06675)."""
    momentum: float = _number(0.85, 0.0, 0.999)
    """Momentum of SGD, Muon and those of timm's optimizers that have one. In `muon_sgd` it is
    Muon's, and SGD's is 0.85."""
    bias_lr_scale: float = _number(1.0, 0.0, 10_000.0)
    """Learning rate of batch normalization's biases, as a multiple of the others'; airbench
    has 64."""
    lookahead: int = _number(0, 0, 1_000_000)
    """Interval in steps after which the weights return halfway to their value one interval ago
    (Lookahead, arXiv 1907.08610); 0 switches it off."""
    lookahead_decay: float = _number(0.0, 0.0, 0.99999)
    """Decay per step of Lookahead's slow weights, as in airbench (0.95, with `lookahead` 5). In a
    cooldown the step size is 1 − decay^lookahead · (epoch / rung)³; before it, the slow weights
    equal the weights. With 0, the step size is always ½."""
    weight_decay: float = _number(1e-3, 0.0, 10.0)
    """L2 penalty (SGD) or decoupled decay (AdamW, Muon) on convolution and linear weights;
    `muon_sgd` decays only what its SGD trains."""
    layer_decay: float = _number(1.0, 1e-6, 1.0)
    """Learning rate of each layer divided by the next layer's; the head has the full rate. For
    networks that define their layers, as timm's do."""
    clip_grad_norm: float = _number(0.0, 0.0, 1e6)
    """Largest norm of the whole gradient, which is scaled down to it; 0 switches clipping off."""
    accumulation: int = _number(1, 1, 1_000_000)
    """Micro-batches into which each batch is split to save memory. Their gradients add up to the
    batch's, but batch normalization and dropout see one micro-batch at a time."""
    sam_rho: float = _number(0.0, 0.0, 10.0)
    """Distance by which SAM (sharpness-aware minimization, arXiv 2010.01412) moves the weights
    uphill before it takes the gradient, at twice the cost of a step; 0 switches SAM off."""

    def __post_init__(self) -> None:
        """Refuse a number outside its range, and an optimizer of none of these forms."""
        _Section.__post_init__(self)
        ours = ("sgd", "adamw", "muon", "muon_sgd")
        if self.name not in ours and not re.match(r"timm:\w+$", self.name):
            near = difflib.get_close_matches(self.name, ours, n=1, cutoff=0.0)
            raise SpecError(
                "optimizer must be 'sgd', 'adamw', 'muon', 'muon_sgd' or 'timm:NAME', "
                f"got {self.name!r}; did you mean {near[0]!r}?"
            )

    @property
    def peak_lr(self) -> float:
        """The optimizer's learning rate between warm-up and cooldown."""
        rates = {
            "sgd": self._sgd_lr,
            "adamw": self.adamw_lr,
            "muon": self.muon_lr,
            "muon_sgd": self.muon_sgd_lr,
        }
        return rates.get(self.name, self.timm_lr)

    @property
    def fallback_lr_scale(self) -> float:
        """Learning rate of what Muon is not meant for, as a multiple of `peak_lr`."""
        return self._sgd_lr / self.muon_sgd_lr if self.name == "muon_sgd" else 1.0

    @property
    def _sgd_lr(self) -> float:
        return self.lr_per_1024 * self.batch_size / 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(_Section):
    """The course of a training: its length, warm-up, cooldown, averaging and stages."""

    epochs: int = _number(27, 1, 100_000)
    """Length of the whole schedule, in passes over the training images."""
    passes: float = _number(1.0, 1e-6, 10_000.0)
    """Passes over the training images in one epoch. Rungs compare networks of different cost
    fairly if an epoch takes each the same computation; `resource: compute` in a sweep sets this."""
    train_share: float = _number(1.0, 1e-6, 1.0)
    """Share of the training images that is used, evenly spaced, where time is short."""
    warmup_epochs: float = _number(1.0, 0.0, 100_000.0)
    """Epochs of linear warm-up at the start of the trunk, and of each stage."""
    cooldown_fraction: float = _number(0.34, 0.0, 1.0)
    """Fraction of a rung's epochs in which the learning rate falls linearly to zero, rounded to
    the nearest whole epoch but at least one; 0 switches the cooldown off."""
    ema_decay: float = _number(0.98, 0.0, 0.99999)
    """Decay per step of the moving average of the weights, which is scored; 0 switches averaging
    off."""
    ema_every: int = _number(1, 1, 100_000)
    """Steps between updates of the moving average, which is also updated at the end of every epoch.
    An update uses the product of the decays of all steps since the last one."""
    stages: tuple[Stage, ...] = ()
    """Parts of the training with different values; see trainables/stages.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss(_Section):
    """The targets and weights of the classification loss and of the auxiliary tasks."""

    label_smoothing: float = _number(0.0, 0.0, 0.9)
    """Probability mass spread evenly over all classes."""
    class_weights: Literal["none", "balanced", "sqrt"] = "none"
    """Weight of a label's loss by its class: `balanced` is proportional to 1/n and `sqrt` to 1/√n
    for a class of n training images. The mean weight over the training images is 1."""
    rotation_weight: float = _number(0.0, 0.0, 100.0)
    """Weight of the auxiliary task that predicts the number of quarter turns by which an image was
    rotated; see trainables/nets/auxiliary_heads.py."""
    superclass_weight: float = _number(0.0, 0.0, 100.0)
    """Weight of the auxiliary task that predicts an image's group of classes."""
    superclasses: tuple[tuple[str, ...], ...] = ()
    """Groups of class names, e.g. [[bird, cat], [ship, truck]]; all classes that are not listed
    form one more group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation(_Section):
    """Random changes to the training images."""

    policy: Literal[
        "none",
        "standard",
        "colour",
        "affine",
        "trivialaugment",
        "trivialaugment_wide",
        "randaugment",
    ] = _keyed("standard", "augment")
    """`none` switches off everything below. `standard` applies only the changes set below. The
    others first apply operations drawn per image: see trainables/augmentation/policies.py."""
    magnitude: float = _number(9.0, 0.0, 30.0, key="augment_magnitude")
    """Strength of `colour`, `affine` and `randaugment`, from 0 (no change) to 30;
    `trivialaugment` and `trivialaugment_wide` draw their strength."""
    operations: int = _number(2, 1, 8, key="augment_ops")
    """Number of operations that `randaugment` applies to each image."""
    flip: bool = True
    """Mirror half of the images, left to right."""
    alternating_flip: bool = False
    """Draw once which images are mirrored, then flip every image in each epoch, as in airbench, so
    that any two consecutive epochs show every image and its mirror image."""
    crop_scale: float = _number(1.0, 0.01, 1.0)
    """Smallest area of a random crop that is resized to the training size, as a share of the whole
    image; the area is uniform between it and 1. 1 switches random crops off."""
    crop_ratio: float = _number(4 / 3, 1.0, 4.0)
    """Largest ratio of a random crop's longer to its shorter side; its logarithm is uniform."""
    translate: int | float = _number(2, 0, 4096)
    """Largest shift in each direction; borders are reflected. Below 1 it is a share of the image's
    side, e.g. 0.125 for an eighth of it; from 1 it is whole pixels."""
    cutout: int | float = _number(0, 0, 4096)
    """Side of a square that is filled with the mean colour, in the same units as `translate`;
    0 switches it off."""
    erase_probability: float = _number(0.0, 0.0, 1.0)
    """Share of images in which a rectangle of 2% to 33% of the area gets the mean colour."""
    mixup_alpha: float = _number(0.0, 0.0, 100.0)
    """Parameter of MixUp's Beta distribution; 0 switches MixUp off."""
    cutmix_alpha: float = _number(0.0, 0.0, 100.0)
    """Parameter of CutMix's Beta distribution; 0 switches CutMix off."""
    mix_probability: float = _number(0.5, 0.0, 1.0)
    """Share of images that are mixed when MixUp or CutMix is on."""

    def __post_init__(self) -> None:
        """Refuse a number outside its range, and a length of 1.5 pixels."""
        _Section.__post_init__(self)
        for key in LENGTHS:
            value = getattr(self, key)
            if value >= 1 and value != int(value):
                raise SpecError(
                    f"{key} must be a share of the image's side below 1 or whole pixels, "
                    f"got {value!r}"
                )

    @property
    def crops(self) -> bool:
        """True if training shows random crops."""
        return self.policy != "none" and self.crop_scale < 1
