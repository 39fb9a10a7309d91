"""Profiles, settings and `extends` change a sweep before it is checked."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from common.errors import SpecError
from search.space.settings import merge, settings_between, with_profile, with_settings
from search.space.sweep_files import load_spec, spec_from_mapping

SWEEP: dict[str, Any] = {
    "name": "mine",
    "trials": 9,
    "recipe": {"width": 8, "tta": "none"},
    "space": {"dropout": {"type": "float", "low": 0.0, "high": 0.3}},
}


def test_a_profile_is_merged_and_removed() -> None:
    profiles = {"cpu": {"trials": 2, "recipe": {"width": 16}}, "gpu": {"trials": 50}}
    on_cpu = with_profile({**SWEEP, "profiles": profiles}, "cpu", where="mine")
    assert on_cpu == {**SWEEP, "trials": 2, "recipe": {"width": 16, "tta": "none"}}
    assert with_profile(SWEEP, "gpu", where="mine") == SWEEP


@pytest.mark.parametrize(
    ("profiles", "message"), [(3, "cpu and gpu, got 3"), ({"gpuu": {}}, "did you mean 'gpu'")]
)
def test_an_impossible_profile_is_refused(profiles: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        with_profile({**SWEEP, "profiles": profiles}, "cpu", where="mine")


def test_a_setting_is_yaml_and_fixes_a_searched_value() -> None:
    changed = with_settings(SWEEP, ["recipe.dropout=1e-1", "rungs=[2, 4]", "dataset.image_size=64"])
    assert changed["recipe"] == {"width": 8, "tta": "none", "dropout": 0.1}
    assert (changed["space"], changed["rungs"]) == ({}, [2, 4])
    assert changed["dataset"] == {"image_size": 64}
    assert SWEEP["space"], "the original is unchanged"


def test_null_removes_a_value() -> None:
    changed = with_settings(SWEEP, ["space.dropout=null", "space.width=null"])
    assert (changed["space"], changed["recipe"]) == ({}, SWEEP["recipe"])


def test_searching_a_value_removes_it_from_the_recipe() -> None:
    searched = with_settings(SWEEP, ["space.width={type: int, low: 8, high: 16}"])
    assert searched["recipe"] == {"tta": "none"}


@pytest.mark.parametrize("setting", ["width", "=3", "recipe..width=3", "recipe.width=[3"])
def test_a_malformed_setting_is_refused(setting: str) -> None:
    with pytest.raises(SpecError, match="is not a"):
        with_settings(SWEEP, [setting])


def test_the_settings_between_two_sweeps_turn_one_into_the_other() -> None:
    before = spec_from_mapping(SWEEP)
    settings = ["recipe.dropout=0.1", "trials=4", 'deliver="single"', "target.accuracy=0.5"]
    after = spec_from_mapping(with_settings(SWEEP, settings))
    between = settings_between(before.to_mapping(), after.to_mapping())
    assert spec_from_mapping(with_settings(before.to_mapping(), between)) == after


def test_a_file_with_profiles_is_loaded_for_one_device(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, "profiles": {"gpu": {"trials": 50}}}))
    assert load_spec(path, profile="cpu").trials == 9
    assert load_spec(path, profile="gpu").trials == 50
    assert load_spec(path, profile="gpu", settings=["trials=3"]).trials == 3


def test_contradictory_changes_are_kept() -> None:
    """The specification then refuses a value that is both fixed and searched."""
    changes = {"recipe": {"dropout": 0.1}, "space": {"dropout": {"type": "float"}}}
    assert merge(SWEEP, changes)["recipe"]["dropout"] == 0.1


def test_a_sweep_extends_another(tmp_path: Path) -> None:
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\ntrials: 3\n")
    (tmp_path / "parent.yaml").write_text("extends: cifar10\nmembers: 2\n")
    child = load_spec(tmp_path / "child.yaml")
    assert (child.name, child.trials, child.members) == ("child", 3, 2)
    assert child.recipe == load_spec("cifar10").recipe


def test_sweeps_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\n")
    (tmp_path / "parent.yaml").write_text("extends: child.yaml\n")
    with pytest.raises(SpecError, match=r"extends 'parent\.yaml', which extends child\.yaml"):
        load_spec(tmp_path / "parent.yaml")


def test_a_value_that_is_set_holds_in_every_family() -> None:
    sweep = {
        "recipe": {"width": 16},
        "families": {
            "a": {"recipe": {"dropout": 0.1, "depth": 3}},
            "b": {"space": {"dropout": {"type": "float", "low": 0.0, "high": 0.5}}},
        },
    }
    changed = with_settings(sweep, ["recipe.dropout=0.3"])
    assert changed["recipe"] == {"width": 16, "dropout": 0.3}
    assert changed["families"] == {"a": {"recipe": {"depth": 3}}, "b": {"space": {}}}
    assert with_settings(sweep, ["families.a=null"])["families"].keys() == {"b"}


def test_an_empty_splits_replaces_those_of_the_sweep() -> None:
    """It says that no folder is a split's."""
    sweep = {"dataset": {"path": "photos", "splits": {"train": "A", "test": "B"}}}
    assert merge(sweep, {"dataset": {"splits": {}}})["dataset"] == {"path": "photos", "splits": {}}
    changed = merge(sweep, {"dataset": {"splits": {"test": "C"}}})["dataset"]["splits"]
    assert changed == {"train": "A", "test": "C"}
