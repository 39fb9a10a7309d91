"""Which training a checkpoint is of: what it must share with the one that continues it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import RunError
from common.parsing import to_mapping
from trainables.recipe import Recipe
from trainables.training.losses import Distillation
from trainables.training.optimizers import cooldown_epochs

Identity = Mapping[str, Any]
"""Plain JSON."""


def identity_of(
    recipe: Recipe,
    *,
    rungs: Sequence[int],
    seed: int,
    split_id: str,
    distillation: Distillation | None,
) -> Identity:
    """All that decides a training, its numerics and its teacher aside."""
    return {
        "recipe": recipe.to_mapping(),
        "rungs": list(rungs),
        "seed": seed,
        "split_id": split_id,
        "distillation": to_mapping(distillation),
    }


def require_same(saved: Identity, here: Identity, *, step: int, where: str | Path) -> None:
    """Refuse a checkpoint, `saved` at `where` after `step` epochs, of another training.

    Before the first cooldown, schedules of all lengths are the same: there, epochs and
    rungs may be others. A field that the recipe has got since had its default's effect.

    Raises:
        RunError: what differs first, with both values.
    """
    saved = {**saved, "recipe": {**Recipe().to_mapping(), **saved.get("recipe", {})}}
    if step <= min(_trunk_epochs(saved), _trunk_epochs(here)):
        saved, here = _without_length(saved), _without_length(here)
    for key, mine in here.items():
        theirs = saved.get(key)
        if theirs != mine:
            raise RunError(f"{where} is of another training: {_difference(key, theirs, mine)}")


def _trunk_epochs(identity: Identity) -> int:
    """Epochs before the first cooldown."""
    first, fraction = identity["rungs"][0], identity["recipe"]["cooldown_fraction"]
    return int(first) - cooldown_epochs(first, fraction)


def _without_length(identity: Identity) -> Identity:
    recipe = {key: value for key, value in identity["recipe"].items() if key != "epochs"}
    return {**identity, "recipe": recipe, "rungs": []}


def _difference(key: str, theirs: Any, mine: Any) -> str:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        name = next(name for name in mine if theirs.get(name) != mine[name])
        key, theirs, mine = f"{key} {name}", theirs.get(name), mine[name]
    return f"{key} is {theirs!r} there and {mine!r} here"
