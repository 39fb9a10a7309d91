"""An ablation: a full recipe, the same recipe without each factor, and without all of them.

These recipes are the variants; each of them is trained from the same seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.errors import RunError, SpecError
from common.files import read_json, write_json_once
from common.parsing import check_key
from search.ablation.factors import FACTORS, distinct_factors, factors_of, same_training, without
from search.samplers.best import best_recipe
from search.space.spec import SweepSpec
from search.space.sweep_files import spec_of_run
from trainables.recipe import Recipe
from trainables.records import RunFolder, read_start

SCHEMA = 1

SEEDS = 5
"""Default number of seeds that every variant is trained from."""

FULL, BARE = "full", "bare"
"""Names of the variant with every factor and of the variant with none."""

ALL = "all"
"""Stands for all factors at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """The variants to compare, and the number of seeds of each."""

    factors: Mapping[str, Mapping[str, Any]]
    """Recipe values that remove each factor, or ALL of them, as in a YAML."""
    seeds: int
    """Seeds that every variant is trained from."""

    def __post_init__(self) -> None:
        """Refuse an ablation without seeds."""
        if self.seeds < 1:
            raise SpecError(f"--seeds must be at least 1, got {self.seeds}")

    @property
    def trials(self) -> int:
        """The number of trainings."""
        return self.seeds * (1 + len(self.factors))

    def variants(self, recipe: Recipe) -> dict[str, Recipe]:
        """Return the variants of `recipe` by name, the full one first."""
        plain = recipe.to_mapping()
        return {FULL: recipe} | {
            variant_name(factor): Recipe.from_mapping({**plain, **values}, where=factor)
            for factor, values in self.factors.items()
        }

    def spec_for(self, spec: SweepSpec, recipe: Recipe | None = None) -> SweepSpec:
        """Return the specification of a run that trains only the variants of `recipe`.

        The recipe is by default that of `spec`.
        """
        values = (recipe or spec.base_recipe()).to_mapping()
        epochs = values.pop("epochs")
        return spec.with_values(
            recipe=values,
            families={},
            space={},
            rungs=(epochs,),
            trials=self.trials,
            deliver="single",
            target=None,
        )

    def trials_left(self, folder: RunFolder) -> int:
        """Return how many of the trainings have no record in a run's folder."""
        names = {
            trial_name(variant, seed)
            for variant in (FULL, *map(variant_name, self.factors))
            for seed in range(self.seeds)
        }
        return len(names - {record.trial for record in folder.records()})

    def write(self, folder: RunFolder) -> None:
        """Write the factors into a run's folder, unless they are there already."""
        write_json_once(factors_path(folder), {"schema": SCHEMA, "factors": self.factors})


def new_ablation(
    spec: SweepSpec,
    *,
    of: RunFolder | None = None,
    factors: Sequence[str] | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
) -> tuple[Ablation, SweepSpec]:
    """Return an ablation of a sweep, and the specification of the run that trains it.

    The full recipe is the one that all trials of `spec` start from, or the best of the run `of`;
    `epochs` replaces its own.

    Raises:
        SpecError: the recipe lacks one of `factors`, or seeds < 1.
        RunError: no trial of `of` was scored.
    """
    recipe = spec.base_recipe() if of is None else recipe_of(of)
    if epochs is not None:
        recipe = recipe.with_values(epochs=epochs)
    ablation = ablation_of(recipe, names=factors, seeds=SEEDS if seeds is None else seeds)
    return ablation, ablation.spec_for(spec, recipe)


def resumed_ablation(
    folder: RunFolder, *, of: RunFolder | None = None, seeds: int | None = None
) -> Ablation:
    """Return the ablation that was started in `folder`.

    `seeds` may raise its number of seeds; the recipe must be that of the run `of`, if given.

    Raises:
        RunError: the folder holds another kind of run, or an ablation whose plan was not written.
        SpecError: it was started with more seeds, or with another recipe.
    """
    spec = spec_of_run(folder)
    ablation = read_ablation(folder, spec)
    if of is not None:
        _require_same_recipe(spec, of)
    if seeds is not None and seeds < ablation.seeds:
        raise SpecError(
            f"--seeds {seeds}: the ablation in {folder.root} was started with {ablation.seeds}; a "
            "resume may only add seeds: give that many or more"
        )
    return replace(ablation, seeds=seeds or ablation.seeds)


def _require_same_recipe(spec: SweepSpec, of: RunFolder) -> None:
    """Refuse a resumed ablation whose recipe is not that of the run `of`, but for its length."""
    first, second = spec.base_recipe(), recipe_of(of)
    if first != second.with_values(epochs=first.schedule.epochs):
        raise SpecError(
            f"--of {of.root}: the ablation was started with another recipe; a resume keeps it"
        )


def ablation_of(
    recipe: Recipe, *, names: Sequence[str] | None = None, seeds: int = SEEDS
) -> Ablation:
    """Return the ablation that removes each factor of `recipe`, and all of them together.

    `names` restricts it to some factors. By default, where several factors have the same effect
    when removed, only the most specific is used.

    Raises:
        SpecError: a name is not a factor of this recipe, or seeds < 1.
    """
    present = factors_of(recipe)
    if names is None:
        chosen = distinct_factors(recipe, present)
    else:
        for name in names:
            check_key(name, FACTORS, where="--factors")
            if name not in present:
                known = ", ".join(present) or "none that can be removed"
                raise SpecError(f"the recipe has no {name!r}; its factors: {known}")
        chosen = [name for name in FACTORS if name in names]
    if not chosen:
        raise SpecError("there is no factor to remove from this recipe")
    removed = {name: without(recipe, [name]) for name in chosen}
    bare = without(recipe, chosen)
    if not any(same_training(bare, variant) for variant in removed.values()):
        removed[ALL] = bare
    changes = {name: _changes(recipe, variant) for name, variant in removed.items()}
    return Ablation(factors=changes, seeds=seeds)


def read_ablation(folder: RunFolder, spec: SweepSpec) -> Ablation:
    """Read the ablation that the run in `folder`, with the specification `spec`, was started for.

    Raises:
        RunError: it was started for something else, or the file with the factors is damaged.
    """
    path = factors_path(folder)
    if not path.exists():
        raise RunError(
            f"{folder.root} holds no ablation, or one that was stopped before its factors were "
            "written and anything was trained; remove it, or choose another --name"
        )
    content = read_json(path)
    factors = content.get("factors")
    if content.get("schema") != SCHEMA or not isinstance(factors, dict):
        raise RunError(f"{path}: schema {content.get('schema')!r}, this version reads {SCHEMA}")
    return Ablation(factors=factors, seeds=spec.trial_count // (1 + len(factors)))


def recipe_of(folder: RunFolder) -> Recipe:
    """Return the recipe of a run's best single trial: on holdout if selected, else on val.

    Raises:
        RunError: no trial was scored.
    """
    if not folder.selection.exists():
        return best_recipe(folder)
    name = read_json(folder.selection)["best_single"]["name"]
    return read_start(folder.trial(name) / "start.json").recipe


def variant_name(factor: str) -> str:
    """Return the name of the variant without a factor."""
    return BARE if factor == ALL else f"no-{factor}"


def trial_name(variant: str, seed: int) -> str:
    """Return the name of a variant's training from the seed with this number."""
    return f"{variant}-{seed}"


def factors_path(folder: RunFolder) -> Path:
    """Return the file that only the folder of an ablation has."""
    return folder.root / "factors.json"


def _changes(recipe: Recipe, variant: Recipe) -> dict[str, Any]:
    before = recipe.to_mapping()
    return {key: value for key, value in variant.to_mapping().items() if value != before[key]}
