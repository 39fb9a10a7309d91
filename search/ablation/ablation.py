"""An ablation: the full recipe, the recipe without each factor, and the bare one without all.

Each of these variants is trained from the same seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import RunError, SpecError
from common.files import read_json, write_json_once
from common.parsing import check_key
from search.ablation.factors import FACTORS, differ, distinct, factors_of, without
from search.space.spec import SweepSpec
from trainables.recipe import Recipe
from trainables.records import RunFolder

SCHEMA = 1

SEEDS = 5
"""How many seeds every variant is trained from, where nobody says."""

FULL, BARE = "full", "bare"
"""The variants that lack nothing, and everything."""

ALL = "all"
"""Stands for every factor at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What is to be compared: every variant of a recipe, each from the same seeds."""

    factors: Mapping[str, Mapping[str, Any]]
    """By factor, and for ALL: the recipe values that remove it, as in a YAML."""
    seeds: int

    def __post_init__(self) -> None:
        """Refuse what has no spread."""
        if self.seeds < 1:
            raise SpecError(f"--seeds must be at least 1, got {self.seeds}")

    @property
    def trials(self) -> int:
        """How many trainings that is."""
        return self.seeds * (1 + len(self.factors))

    def variants(self, recipe: Recipe) -> dict[str, Recipe]:
        """The recipes by name, the full one first."""
        plain = recipe.to_mapping()
        return {FULL: recipe} | {
            variant_of(factor): Recipe.from_mapping({**plain, **values}, where=factor)
            for factor, values in self.factors.items()
        }

    def applied(self, spec: SweepSpec, recipe: Recipe | None = None) -> SweepSpec:
        """The specification of a run that trains these variants of `recipe`, and no others.

        By default of the specification's own.
        """
        values = (recipe or spec.base_recipe()).to_mapping()
        epochs = values.pop("epochs")
        return spec.with_values(
            recipe=values,
            space={},
            rungs=(epochs,),
            trials=self.trials,
            deliver="single",
            target=None,
        )

    def left(self, folder: RunFolder) -> int:
        """How many of the trainings have not ended in a run's folder."""
        names = {
            trial_of(variant, seed)
            for variant in (FULL, *map(variant_of, self.factors))
            for seed in range(self.seeds)
        }
        return len(names - {record.trial for record in folder.records()})

    def write(self, folder: RunFolder) -> None:
        """Leave in the run's folder what is removed, once."""
        write_json_once(factors_path(folder), {"schema": SCHEMA, "factors": self.factors})


def ablation_of(
    recipe: Recipe, *, names: Sequence[str] | None = None, seeds: int = SEEDS
) -> Ablation:
    """Remove each factor of `recipe`, or those of `names`, and all of them.

    Without `names`, of factors whose removal comes to the same, the most particular is left.

    Raises:
        SpecError: a name that is no factor, or none of this recipe's, or seeds < 1.
    """
    there = factors_of(recipe)
    if names is None:
        chosen = distinct(recipe, there)
    else:
        for name in names:
            check_key(name, FACTORS, where="--factors")
            if name not in there:
                known = ", ".join(there) or "none that can be removed"
                raise SpecError(f"the recipe has no {name!r}; its factors: {known}")
        chosen = [name for name in FACTORS if name in names]
    if not chosen:
        raise SpecError("there is no factor to remove from this recipe")
    removed = {name: without(recipe, [name]) for name in chosen}
    bare = without(recipe, chosen)
    if all(differ(bare, variant) for variant in removed.values()):
        removed[ALL] = bare
    changes = {name: _changes(recipe, variant) for name, variant in removed.items()}
    return Ablation(factors=changes, seeds=seeds)


def ablation_of_run(folder: RunFolder, spec: SweepSpec) -> Ablation:
    """What the run in `folder`, of the specification `spec`, was started to compare.

    Raises:
        RunError: it was started for something else, or the file that says so is damaged.
    """
    path = factors_path(folder)
    if not path.exists():
        raise RunError(f"{folder.root} holds no ablation; choose another folder")
    found = read_json(path)
    factors = found.get("factors")
    if found.get("schema") != SCHEMA or not isinstance(factors, dict):
        raise RunError(f"{path}: schema {found.get('schema')!r}, this version reads {SCHEMA}")
    return Ablation(factors=factors, seeds=spec.trials // (1 + len(factors)))


def variant_of(factor: str) -> str:
    """The name of the variant that lacks a factor."""
    return BARE if factor == ALL else f"no-{factor}"


def trial_of(variant: str, seed: int) -> str:
    """The name of a variant's training from the seed of this number."""
    return f"{variant}-{seed}"


def factors_path(folder: RunFolder) -> Path:
    """The file that tells an ablation from other runs."""
    return folder.root / "factors.json"


def _changes(recipe: Recipe, variant: Recipe) -> dict[str, Any]:
    before = recipe.to_mapping()
    return {key: value for key, value in variant.to_mapping().items() if value != before[key]}
