"""The factors of a recipe, and the recipe without one of them.

A factor is a part that a practitioner would name, such as `flip` or `whitening`, with the recipe
values that remove it. A recipe has a factor only if removing it changes what is trained or how
the net predicts: `flip` is not a factor of a recipe without augmentation, nor `whitening` of a net
that has none.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainables.recipe import Recipe
from trainables.stages import STAGE_KEYS, Stage

LAST = "last"
"""Value of `stages` that keeps only the last stage, from the first epoch on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A part of a recipe."""

    off: Mapping[str, Any]
    """Recipe values that remove it."""
    on: Callable[[Recipe], bool] = lambda _: True
    """Tells whether a recipe has it, where comparing values is not enough."""


FACTORS: Mapping[str, Factor] = {
    "augmentation": Factor(off={"augment": "none"}),
    "policy": Factor(
        off={"augment": "standard"}, on=lambda r: r.augmentation.policy not in ("none", "standard")
    ),
    "flip": Factor(off={"flip": False}),
    "alternating-flip": Factor(off={"alternating_flip": False}),
    "random-crop": Factor(off={"crop_scale": 1.0}),
    "translate": Factor(off={"translate": 0}),
    "cutout": Factor(off={"cutout": 0}),
    "erasing": Factor(off={"erase_probability": 0.0}),
    "mixup": Factor(off={"mixup_alpha": 0.0}),
    "cutmix": Factor(off={"cutmix_alpha": 0.0}),
    "label-smoothing": Factor(off={"label_smoothing": 0.0}),
    "class-weights": Factor(off={"class_weights": "none"}),
    "dropout": Factor(off={"dropout": 0.0}),
    "drop-path": Factor(off={"drop_path": 0.0}),
    "weight-decay": Factor(off={"weight_decay": 0.0}),
    "layer-decay": Factor(off={"layer_decay": 1.0}),
    "warm-up": Factor(off={"warmup_epochs": 0.0}),
    "ema": Factor(off={"ema_decay": 0.0}),
    "clipping": Factor(off={"clip_grad_norm": 0.0}),
    "sam": Factor(off={"sam_rho": 0.0}),
    "lookahead": Factor(off={"lookahead": 0}),
    "bias-rate": Factor(off={"bias_lr_scale": 1.0}),
    "whitening": Factor(off={"whitening": False}),
    "dirac-init": Factor(off={"init": "default"}),
    "attention": Factor(off={"attention": "none"}),
    "residual": Factor(off={"depth": 2}, on=lambda r: r.architecture.depth > 2),
    "rotation-task": Factor(off={"rotation_weight": 0.0}),
    "superclass-task": Factor(off={"superclass_weight": 0.0}),
    "pretraining": Factor(
        off={"pretrained": "", "stages": (), "layer_decay": 1.0},
        on=lambda r: bool(r.architecture.pretrained),
    ),
    "stages": Factor(off={"stages": LAST}),
    "tta": Factor(off={"tta": "none"}),
}
"""The factors by name, as a command takes it. Removing pretraining removes the stages too, which
were chosen for those weights; the values of the last stage remain."""


def factors_of(recipe: Recipe) -> list[str]:
    """Return the names of the factors that a recipe has, in the order of FACTORS."""
    return [name for name in FACTORS if not same_training(recipe, without(recipe, [name]))]


def without(recipe: Recipe, names: Iterable[str]) -> Recipe:
    """Return the recipe without these factors in any of its stages."""
    for name in names:
        recipe = _without(recipe, FACTORS[name])
    return recipe


def same_training(first: Recipe, second: Recipe) -> bool:
    """Return whether two recipes train and predict alike, however they are written."""
    return _effective(first) == _effective(second)


def distinct_factors(recipe: Recipe, names: Sequence[str]) -> list[str]:
    """Leave out each factor whose removal gives the same training as removing a later one."""
    kept: list[str] = []
    for name in reversed(names):
        variant = without(recipe, [name])
        if not any(same_training(variant, without(recipe, [other])) for other in kept):
            kept.insert(0, name)
    return kept


def _without(recipe: Recipe, factor: Factor) -> Recipe:
    off, stages = factor.off, recipe.schedule.stages
    if "stages" in off:
        return _without_stages(recipe, factor)
    changed = recipe.with_values(**off) if factor.on(recipe) else recipe
    if "layer_decay" in off:  # a stage has its own in a field, not among its values
        stages = tuple(replace(stage, layer_decay=None) for stage in stages)
        return changed.with_values(stages=stages)
    off_in_stages = {key: value for key, value in off.items() if key in STAGE_KEYS}
    if not off_in_stages or not stages:
        return changed
    # A stage keeps its other values, whether it sets them itself or takes them from the recipe.
    return changed.with_values(
        stages=tuple(
            replace(
                stage,
                values=_stage_values(changed, recipe.in_stage(index), stage, factor, off_in_stages),
            )
            for index, stage in enumerate(stages)
        )
    )


def _without_stages(recipe: Recipe, factor: Factor) -> Recipe:
    if not factor.on(recipe):
        return recipe
    if factor.off["stages"] == LAST:
        return recipe.with_values(stages=recipe.schedule.stages[-1:])
    return recipe.in_stage(-1).with_values(**factor.off)


def _stage_values(
    changed: Recipe, before: Recipe, stage: Stage, factor: Factor, off: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a stage's values without the factor, leaving out those that `changed` has anyway."""
    present = factor.on(before)
    new = {key: off[key] if present else before.values()[key] for key in off}
    return {
        key: value
        for key, value in {**stage.values, **new}.items()
        if key not in off or value != changed.values()[key]
    }


def _effective(recipe: Recipe) -> list[tuple[Stage, Recipe]]:
    """Return each stage and its recipe, with fixed values in place of those without effect."""
    return [
        (
            replace(stage, values={}, layer_decay=None),
            _without_idle_values(recipe.in_stage(index), head_only=stage.train == "head"),
        )
        for index, stage in enumerate(recipe.schedule.stages or (Stage(),))
    ]


def _without_idle_values(recipe: Recipe, *, head_only: bool) -> Recipe:
    idle: dict[str, Any] = {"layer_decay": 1.0} if head_only else {}
    augmentation, architecture = recipe.augmentation, recipe.architecture
    mixes = augmentation.mix_probability and (augmentation.mixup_alpha or augmentation.cutmix_alpha)
    if not mixes:
        idle |= {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "mix_probability": 0.0}
    if not augmentation.flip:
        idle["alternating_flip"] = False
    if augmentation.crop_scale == 1:
        idle["crop_ratio"] = 1.0
    draws = (
        augmentation.flip
        or augmentation.crops
        or augmentation.translate
        or augmentation.cutout
        or augmentation.erase_probability
        or mixes
    )
    if augmentation.policy == "none" or (augmentation.policy == "standard" and not draws):
        idle |= _NO_AUGMENTATION
    if architecture.model != "convnet" or architecture.pretrained:
        # Other nets lack these parts, and weights fit only the net that they were trained in.
        idle |= _NO_PARTS
    return recipe.with_values(**idle)


_NO_PARTS = {"whitening": False, "init": "default", "attention": "none", "depth": 2}
"""Recipe values without the parts that only this project's nets have."""

_NO_AUGMENTATION = {
    "augment": "none",
    "flip": False,
    "alternating_flip": False,
    "crop_scale": 1.0,
    "crop_ratio": 1.0,
    "translate": 0,
    "cutout": 0,
    "erase_probability": 0.0,
    "mixup_alpha": 0.0,
    "cutmix_alpha": 0.0,
    "mix_probability": 0.0,
}
"""Recipe values of training without augmentation."""
