"""What a recipe is made of: its factors, and the recipe without one of them.

A factor is a part that a practitioner would name, such as `flip` or `whitening`, with the
recipe values that remove it. A recipe has it only if removing it changes what is trained or
how it predicts: `flip` is no factor of a recipe that augments nothing, nor `whitening` of a
net that has none.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainables.recipe import Recipe
from trainables.stages import CHANGEABLE, Stage

LAST = "last"
"""As a value of `stages`: the last one alone, from the first epoch on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A part of a recipe."""

    off: Mapping[str, Any]
    """The recipe values that remove it."""
    on: Callable[[Recipe], bool] = lambda _: True
    """Whether a recipe has it, where its values alone do not tell."""


FACTORS: Mapping[str, Factor] = {
    "augmentation": Factor(off={"augment": "none"}),
    "policy": Factor(
        off={"augment": "standard"}, on=lambda r: r.augmentation.policy not in ("none", "standard")
    ),
    "flip": Factor(off={"flip": False}),
    "alternating-flip": Factor(off={"alternating_flip": False}),
    "translate": Factor(off={"translate": 0}),
    "cutout": Factor(off={"cutout": 0}),
    "erasing": Factor(off={"erase_probability": 0.0}),
    "mixup": Factor(off={"mixup_alpha": 0.0}),
    "cutmix": Factor(off={"cutmix_alpha": 0.0}),
    "label-smoothing": Factor(off={"label_smoothing": 0.0}),
    "class-weights": Factor(off={"class_weights": "none"}),
    "dropout": Factor(off={"dropout": 0.0}),
    "weight-decay": Factor(off={"weight_decay": 0.0}),
    "warm-up": Factor(off={"warmup_epochs": 0.0}),
    "ema": Factor(off={"ema_decay": 0.0}),
    "lookahead": Factor(off={"lookahead": 0}),
    "bias-rate": Factor(off={"bias_lr_scale": 1.0}),
    "whitening": Factor(off={"whitening": False}),
    "dirac-init": Factor(off={"init": "default"}),
    "attention": Factor(off={"attention": "none"}),
    "residual": Factor(off={"depth": 2}, on=lambda r: r.architecture.depth > 2),
    "rotation-task": Factor(off={"rotation_weight": 0.0}),
    "superclass-task": Factor(off={"superclass_weight": 0.0}),
    "pretraining": Factor(
        off={"pretrained": "", "stages": ()}, on=lambda r: bool(r.architecture.pretrained)
    ),
    "stages": Factor(off={"stages": LAST}),
    "tta": Factor(off={"tta": "none"}),
}
"""By the name that a command takes. Stages are laid for the weights that a net starts from, so
they go with them; the values of the last one stay."""


def factors_of(recipe: Recipe) -> list[str]:
    """The factors that a recipe has, in the order of FACTORS."""
    return [name for name in FACTORS if differ(recipe, without(recipe, [name]))]


def without(recipe: Recipe, names: Iterable[str]) -> Recipe:
    """The recipe, in all its stages, without these factors."""
    for name in names:
        recipe = _without(recipe, FACTORS[name])
    return recipe


def differ(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes train otherwise, or predict otherwise."""
    return _in_effect(one) != _in_effect(other)


def distinct(recipe: Recipe, names: Sequence[str]) -> list[str]:
    """`names` without those whose removal is the same training as that of a later one."""
    kept: list[str] = []
    for name in reversed(names):
        own = without(recipe, [name])
        if all(differ(own, without(recipe, [other])) for other in kept):
            kept.insert(0, name)
    return kept


def _without(recipe: Recipe, factor: Factor) -> Recipe:
    off, stages = factor.off, recipe.schedule.stages
    if "stages" in off:
        return _without_stages(recipe, factor)
    own = recipe.with_values(**off) if factor.on(recipe) else recipe
    inside = {key: value for key, value in off.items() if key in CHANGEABLE}
    if not inside or not stages:
        return own
    # What a stage says for itself, or said through the recipe until now, it says still.
    return own.with_values(
        stages=tuple(
            replace(stage, values=_stage_values(own, recipe.in_stage(index), stage, factor, inside))
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
    own: Recipe, before: Recipe, stage: Stage, factor: Factor, off: Mapping[str, Any]
) -> dict[str, Any]:
    """A stage's values once the factor is gone from it; none that the recipe has anyway."""
    there = factor.on(before)
    now = {key: off[key] if there else before.values()[key] for key in off}
    return {
        key: value
        for key, value in {**stage.values, **now}.items()
        if key not in off or value != own.values()[key]
    }


def _in_effect(recipe: Recipe) -> list[tuple[Stage, Recipe]]:
    """What is done in every stage, with everything that has no effect there at its default."""
    return [
        (replace(stage, values={}), _used(recipe.in_stage(index)))
        for index, stage in enumerate(recipe.schedule.stages or (Stage(),))
    ]


def _used(recipe: Recipe) -> Recipe:
    idle: dict[str, Any] = {}
    changes, architecture = recipe.augmentation, recipe.architecture
    mixes = changes.mix_probability and (changes.mixup_alpha or changes.cutmix_alpha)
    if not mixes:
        idle |= {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "mix_probability": 0.0}
    if not changes.flip:
        idle["alternating_flip"] = False
    drawn = (
        changes.flip or changes.translate or changes.cutout or changes.erase_probability or mixes
    )
    if changes.policy == "none" or (changes.policy == "standard" and not drawn):
        idle |= _UNCHANGED
    if architecture.model != "convnet" or architecture.pretrained:
        # Other nets have no such parts, and weights fit the net that they come from.
        idle |= _NO_PARTS
    return recipe.with_values(**idle)


_NO_PARTS = {"whitening": False, "init": "default", "attention": "none", "depth": 2}
"""Recipe values of parts that only our own family of nets has."""

_UNCHANGED = {
    "augment": "none",
    "flip": False,
    "alternating_flip": False,
    "translate": 0,
    "cutout": 0,
    "erase_probability": 0.0,
    "mixup_alpha": 0.0,
    "cutmix_alpha": 0.0,
    "mix_probability": 0.0,
}
"""Recipe values of training on images as they are."""
