"""The values in which a checkpoint must match the training that resumes from it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import RunError
from common.parsing import to_mapping
from common.rungs import course
from trainables.recipe import Recipe
from trainables.training.losses import Distillation

TrainingIdentity = Mapping[str, Any]
"""Plain JSON."""


def training_identity(
    recipe: Recipe,
    *,
    rungs: Sequence[int],
    seed: int,
    split_id: str,
    distillation: Distillation | None,
) -> TrainingIdentity:
    """Return everything that determines a training, except its numerics and its teacher."""
    return {
        "recipe": recipe.to_mapping(),
        "rungs": list(rungs),
        "seed": seed,
        "split_id": split_id,
        "distillation": to_mapping(distillation),
    }


def require_same_training(
    saved: TrainingIdentity, current: TrainingIdentity, *, step: int, where: str | Path
) -> None:
    """Refuse a checkpoint of another training, saved at `where` after `step` epochs.

    The last rung may differ until its cooldown begins, and all rungs until the first cooldown
    begins: up to there the steps are the same. Recipe values that the checkpoint lacks are taken as
    the defaults, because versions that did not have a value trained as its default does.

    Raises:
        RunError: a value differs; the message names the first.
    """
    saved = {**saved, "recipe": {**Recipe().to_mapping(), **saved.get("recipe", {})}}
    if _course(saved)[:step] == _course(current)[:step]:
        saved, current = _without_length(saved), _without_length(current)
    for key, value in current.items():
        if saved.get(key) != value:
            difference = _difference(key, saved.get(key), value)
            raise RunError(f"{where} belongs to another training: {difference}")


def _course(identity: TrainingIdentity) -> list[tuple[int, int | None, bool]]:
    """Return (epoch of the schedule, rung of the cooldown or None, is it the last?) of each step.

    The last rung matters, because the trunk is not kept before its cooldown.
    """
    rungs, fraction = identity["rungs"], identity["recipe"]["cooldown_fraction"]
    return [(epoch, rung, rung == rungs[-1]) for epoch, rung in course(rungs, fraction)]


def _without_length(identity: TrainingIdentity) -> TrainingIdentity:
    recipe = {key: value for key, value in identity["recipe"].items() if key != "epochs"}
    return {**identity, "recipe": recipe, "rungs": []}


def _difference(key: str, saved: Any, current: Any) -> str:
    if isinstance(saved, dict) and isinstance(current, dict):
        name = next(name for name in current if saved.get(name) != current[name])
        key, saved, current = f"{key} {name}", saved.get(name), current[name]
    return f"{key} is {saved!r} in the checkpoint and {current!r} here"
