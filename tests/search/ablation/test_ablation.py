"""An ablation: its variants, and the file in the run's folder that describes it."""

from pathlib import Path

import pytest

from common.errors import RunError, SpecError
from search.ablation.ablation import Ablation, ablation_of, read_ablation
from search.space.sweep_files import load_spec
from trainables.recipe import Recipe
from trainables.records import RunFolder

RECIPE = Recipe(epochs=4, flip=False)
TWO = ("ema", "whitening")


def two(seeds: int = 5) -> Ablation:
    """Return the ablation of two factors."""
    return ablation_of(RECIPE, names=TWO, seeds=seeds)


def test_each_variant_lacks_its_factor() -> None:
    variants = two().variants(RECIPE)
    assert list(variants) == ["full", "no-ema", "no-whitening", "bare"]
    assert variants["full"] == RECIPE
    assert variants["no-ema"] == RECIPE.with_values(ema_decay=0.0)
    assert variants["bare"] == RECIPE.with_values(ema_decay=0.0, whitening=False)
    assert two().trials == 20
    alone = ablation_of(RECIPE, names=["ema"])
    assert list(alone.variants(RECIPE)) == ["full", "no-ema"], "a single factor has no bare variant"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["emma"], "unknown key 'emma'; did you mean 'ema'"),
        (["flip"], "the recipe has no 'flip'; its factors: augmentation, translate"),
        ([], "no factor to remove"),
    ],
)
def test_a_factor_that_the_recipe_does_not_have_is_refused(names: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ablation_of(RECIPE, names=names)


def test_a_run_of_variants_can_be_read_again(tmp_path: Path) -> None:
    spec = load_spec("level2", profile="cpu")
    ablation = ablation_of(spec.base_recipe(), seeds=3)
    run_spec = ablation.spec_for(spec)
    assert (run_spec.base_recipe(), run_spec.trials) == (spec.base_recipe(), ablation.trials)
    assert (run_spec.space, run_spec.rungs, run_spec.target) == ({}, (spec.rungs[-1],), None)
    assert ablation.spec_for(run_spec) == run_spec
    folder = RunFolder(tmp_path)
    with pytest.raises(RunError, match="holds no ablation"):
        read_ablation(folder, run_spec)
    ablation.write(folder)
    read = read_ablation(folder, run_spec)
    recipe = run_spec.base_recipe()
    assert (read.seeds, read.variants(recipe)) == (3, ablation.variants(recipe))
    (tmp_path / "factors.json").write_text('{"schema": 9, "factors": {}}')
    with pytest.raises(RunError, match="schema 9, this version reads 1"):
        read_ablation(folder, run_spec)
