"""Profiles and settings: values that change a sweep before it is checked."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from common.errors import SpecError
from search.space.settings import merged, settings_between, with_profile, with_settings
from search.space.spec import load_spec, spec_from_mapping

SWEEP: dict[str, Any] = {
    "name": "mine",
    "trials": 9,
    "recipe": {"width": 8, "tta": "none"},
    "space": {"dropout": {"type": "float", "low": 0.0, "high": 0.3}},
}


def test_a_profile_gives_its_values_and_leaves_no_trace() -> None:
    profiles = {"cpu": {"trials": 2, "recipe": {"width": 16}}, "gpu": {"trials": 50}}
    found = with_profile({**SWEEP, "profiles": profiles}, "cpu", where="mine")
    assert found == {**SWEEP, "trials": 2, "recipe": {"width": 16, "tta": "none"}}
    assert with_profile(SWEEP, "gpu", where="mine") == SWEEP
    with pytest.raises(SpecError, match="profiles must have values for cpu and gpu, got 3"):
        with_profile({**SWEEP, "profiles": 3}, "cpu", where="mine")


def test_settings_are_yaml_and_take_a_value_out_of_the_search() -> None:
    found = with_settings(SWEEP, ["recipe.dropout=1e-1", "rungs=[2, 4]", "dataset.image_size=64"])
    assert found["recipe"] == {"width": 8, "tta": "none", "dropout": 0.1}
    assert (found["space"], found["rungs"]) == ({}, [2, 4])
    assert found["dataset"] == {"image_size": 64}
    assert SWEEP["space"], "what was given stays as it was"
    gone = with_settings(SWEEP, ["space.dropout=null", "space.width=null"])
    assert (gone["space"], gone["recipe"]) == ({}, SWEEP["recipe"])
    searched = with_settings(SWEEP, ["space.width={type: int, low: 8, high: 16}"])
    assert searched["recipe"] == {"tta": "none"}


@pytest.mark.parametrize("setting", ["width", "=3", "recipe..width=3", "recipe.width=[3"])
def test_what_is_no_setting_is_refused(setting: str) -> None:
    with pytest.raises(SpecError, match="is no"):
        with_settings(SWEEP, [setting])


def test_settings_between_two_sweeps_make_one_of_the_other() -> None:
    before = spec_from_mapping(SWEEP)
    settings = ["recipe.dropout=0.1", "trials=4", 'deliver="single"', "target.accuracy=0.5"]
    after = spec_from_mapping(with_settings(SWEEP, settings))
    found = settings_between(before.to_mapping(), after.to_mapping())
    assert spec_from_mapping(with_settings(before.to_mapping(), found)) == after


def test_a_file_with_profiles_is_loaded_for_one_device(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, "profiles": {"gpu": {"trials": 50}}}))
    assert load_spec(path, profile="cpu").trials == 9
    assert load_spec(path, profile="gpu").trials == 50
    assert load_spec(path, profile="gpu", settings=["trials=3"]).trials == 3


def test_merging_keeps_what_stands_in_both_of_the_changes() -> None:
    """The clash is then refused by the specification, in its own words."""
    changes = {"recipe": {"dropout": 0.1}, "space": {"dropout": {"type": "float"}}}
    assert merged(SWEEP, changes)["recipe"]["dropout"] == 0.1


def test_a_sweep_extends_another(tmp_path: Path) -> None:
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\ntrials: 3\n")
    (tmp_path / "parent.yaml").write_text("extends: cifar10\nmembers: 2\n")
    found = load_spec(tmp_path / "child.yaml")
    assert (found.name, found.trials, found.members) == ("child", 3, 2)
    assert found.recipe == load_spec("cifar10").recipe
    (tmp_path / "parent.yaml").write_text("extends: child.yaml\n")
    with pytest.raises(SpecError, match=r"extends 'parent\.yaml', which extends it"):
        load_spec(tmp_path / "parent.yaml")
