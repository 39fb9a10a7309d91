"""The recipe: every hyperparameter of a training, in sections in code and flat outside.

Code reads `recipe.optimizer.momentum`. YAML files, records, the search space, `--set` and
`Recipe(momentum=0.9)` call the same value `momentum`, without its section.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, Literal, get_type_hints

from common.errors import SpecError
from common.parsing import CustomMapping, check_key, convert, to_mapping
from trainables.hyperparameters import Architecture, Augmentation, Loss, Optimization, Schedule
from trainables.stages import check_stages, fewest_epochs

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True, init=False)
class Recipe(CustomMapping):
    """Everything that determines a training, except its data, its seed and its numerics."""

    architecture: Architecture
    optimizer: Optimization
    schedule: Schedule
    loss: Loss
    augmentation: Augmentation

    KEYS: ClassVar[tuple[str, ...]] = (
        *("family", "input_size", "passes", "train_share"),
        *("model", "stem", "width", "middle", "depth", "block", "activation", "attention"),
        *("init", "whitening", "whitening_epochs", "pretrained", "dropout"),
        *("drop_path", "epochs"),
        *("batch_size", "optimizer", "lr_per_1024", "adamw_lr", "muon_lr"),
        *("muon_sgd_lr", "timm_lr"),
        *("momentum", "bias_lr_scale", "lookahead", "lookahead_decay"),
        *("weight_decay", "layer_decay"),
        *("clip_grad_norm", "accumulation", "sam_rho", "warmup_epochs", "cooldown_fraction"),
        *("label_smoothing", "class_weights", "ema_decay", "ema_every"),
        *("augment", "augment_magnitude"),
        *("augment_ops", "flip", "alternating_flip", "translate", "cutout"),
        *("erase_probability", "mixup_alpha", "cutmix_alpha", "mix_probability"),
        *("crop_scale", "crop_ratio"),
        *("rotation_weight", "superclass_weight", "superclasses", "stages", "tta"),
    )
    """The keys of all values, in their order in records."""

    def __init__(self, **values: Any) -> None:
        """Set values by key, e.g. `Recipe(width=64, lr_per_1024=1.0)`; the others are defaults.

        Raises:
            SpecError: a key is unknown (the error names the nearest known key), or a value is out
                of range.
        """
        by_section: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}
        for key, value in values.items():
            check_key(key, self.KEYS, where="recipe")
            section, name = _places()[key]
            by_section[section][name] = value
        for section, chosen in by_section.items():
            object.__setattr__(self, section, _SECTIONS[section](**chosen))
        check_stages(self.schedule.stages)
        for stage in self.schedule.stages:
            Recipe.from_mapping(stage.values, where="stages: values")

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, where: str = "recipe") -> "Recipe":
        """Return the recipe with these plain values by key; `where` names them in errors.

        Raises:
            SpecError: a key is unknown, or a value has the wrong type or is out of range.
        """
        if not isinstance(mapping, Mapping):
            raise SpecError(f"{where}: expected a mapping of keys to values, got {mapping!r}")
        for key in mapping:
            check_key(key, cls.KEYS, where=where)
        values = {
            key: convert(value, value_types()[key], where=f"{where}: {key}")
            for key, value in mapping.items()
        }
        try:
            return cls(**values)
        except SpecError as error:
            raise SpecError(f"{where}: {error}") from None

    def to_mapping(self) -> dict[str, Any]:
        """Return plain values by key, ready for JSON."""
        return {key: to_mapping(value) for key, value in self.values().items()}

    def values(self) -> dict[str, Any]:
        """Return all values by key, as `Recipe(...)` takes them."""
        return {
            key: getattr(getattr(self, section), name) for key, (section, name) in _places().items()
        }

    def with_values(self, **values: Any) -> "Recipe":
        """Return a copy with some values replaced."""
        return Recipe(**{**self.values(), **values})

    def in_stage(self, index: int) -> "Recipe":
        """Return the recipe with the values of a stage; the result has no stages."""
        stages = self.schedule.stages
        if not stages:
            return self
        stage = stages[index]
        decay = {} if stage.layer_decay is None else {"layer_decay": stage.layer_decay}
        return self.with_values(**stage.values, **decay, stages=())


_SECTIONS: dict[str, type[Any]] = {
    "architecture": Architecture,
    "optimizer": Optimization,
    "schedule": Schedule,
    "loss": Loss,
    "augmentation": Augmentation,
}


@cache
def _places() -> dict[str, tuple[str, str]]:
    """Return every key's section and field name, in the order of `Recipe.KEYS`."""
    places = {
        item.metadata.get("key") or item.name: (name, item.name)
        for name, section in _SECTIONS.items()
        for item in fields(section)
    }
    return {key: places[key] for key in Recipe.KEYS}


@cache
def value_types() -> dict[str, Any]:
    """Return the type of every value by key."""
    hints = {name: get_type_hints(section) for name, section in _SECTIONS.items()}
    return {key: hints[section][name] for key, (section, name) in _places().items()}


def check_length(recipe: Recipe, *, where: str) -> None:
    """Refuse a schedule that ends before the recipe's last stage begins.

    `where` names the setting that holds the schedule's length, for the message.
    """
    fewest, epochs = fewest_epochs(recipe.schedule.stages), recipe.schedule.epochs
    if epochs < fewest:
        raise SpecError(
            f"stages: those before the last take {fewest - 1} epochs and the whole schedule has "
            f"{epochs}; raise {where}, or shorten stages"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """Device, data type, memory layout and threads of a training.

    A probe chooses them; the record holds the choice.
    """

    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:N`."""
    dtype: Dtype = "float32"
    """Layers run under autocast unless this is float32; the weights stay float32. float16 is for
    GPUs without bfloat16 (T4): gradients are computed from a scaled loss."""
    layout: Literal["contiguous", "channels_last"] = "channels_last"
    threads: int = 1
    """Torch's intra-op threads on the CPU. Their number determines how sums are split, so a
    bitwise replay needs the same number."""
    captured: bool = False
    """On a GPU, gradients are computed by replaying a CUDA graph of the step, which takes the CPU
    less time. Not for custom networks, with a teacher, several processes or micro-batches."""
