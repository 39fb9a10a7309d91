"""Families of a sweep that have the same network are probed once."""

from search.timetable.measuring import probe_families
from trainables.recipe import Numerics, Recipe

LITE = {"model": "timm:tf_efficientnet_lite0", "input_size": 96}
RECIPES = {
    "finetune": Recipe(**LITE, family="finetune", tta="mirror", dropout=0.2),
    "head": Recipe(**LITE, family="head", stages=()),
    "scratch": Recipe(family="scratch"),
    "larger": Recipe(**{**LITE, "input_size": 128}, family="larger"),
}


def probed(known: dict[str, Numerics]) -> tuple[dict[str, Numerics], list[str]]:
    """Return the numerics of each family, and the families that were probed."""
    asked: list[str] = []

    def probe(recipe: Recipe) -> Numerics:
        asked.append(recipe.architecture.family)
        return Numerics(threads=len(asked))

    return probe_families(RECIPES, probe, known=known), asked


def test_families_of_one_network_share_a_probe() -> None:
    chosen, asked = probed({})
    assert asked == ["finetune", "scratch", "larger"]
    assert {name: each.threads for name, each in chosen.items()} == {
        "finetune": 1, "head": 1, "scratch": 2, "larger": 3,
    }  # fmt: skip


def test_families_with_trials_keep_their_numerics() -> None:
    before = Numerics(dtype="bfloat16", threads=2)
    chosen, asked = probed({"finetune": before, "scratch": before})
    assert asked == ["larger"]
    assert chosen["head"] == chosen["finetune"] == chosen["scratch"] == before
