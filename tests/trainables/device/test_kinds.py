"""Numerics suit the kind of machine that a trial runs on."""

from typing import Any

from trainables.device.kinds import NumericsHere, machine_here, machine_kind
from trainables.recipe import Numerics, Recipe

GIVEN, PROBED = Numerics(threads=2), Numerics(dtype="bfloat16", threads=2)


def test_a_machine_of_another_kind_measures_each_network_once() -> None:
    probed: list[Recipe] = []

    def probe(recipe: Recipe, **options: Any) -> Numerics:
        assert (options["device"], options["threads"]) == ("cpu", 2)
        probed.append(recipe)
        return PROBED

    here = NumericsHere(probe=probe, kind="B")
    shape: dict[str, Any] = {"classes": 2, "image_size": 8}
    assert here.choose(Recipe(), GIVEN, measured_on="B", **shape) == GIVEN
    assert not probed
    for recipe in (Recipe(), Recipe(lr_per_1024=3.0), Recipe(dropout=0.3), Recipe(width=16)):
        assert here.choose(recipe, GIVEN, measured_on="A", **shape) == PROBED
    assert probed == [Recipe(), Recipe(width=16)]


def test_a_machine_is_described_by_what_decides_speed() -> None:
    about = machine_here("cpu")
    assert about["processor"] in machine_kind("cpu")
    assert all(flag in machine_kind("cpu") for flag in about["cpu_flags"])
    assert "gpu" not in about
