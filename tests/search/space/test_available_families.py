"""Optional families are left out, with a note, where their weights cannot be had."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import SpecError
from search.space.available_families import weights_problem, with_available_families
from search.space.initial_networks import initial_networks
from search.space.sections import FamilySpec
from search.space.spec import SweepSpec
from search.space.sweep_files import load_spec
from trainables.hyperparameters import Architecture

PACKAGED: dict[str, Any] = {"model": "timm:tf_efficientnet_lite0", "pretrained": "package"}
HUB: dict[str, Any] = {"model": "timm:resnet18", "pretrained": "hub"}


def sweep(**families: FamilySpec) -> SweepSpec:
    return SweepSpec(name="x", families=families)


def unreachable(architecture: Architecture) -> str:
    return "the hub cannot be reached" if architecture.pretrained == "hub" else ""


def test_an_optional_family_without_weights_is_left_out() -> None:
    spec = sweep(near=FamilySpec(recipe=PACKAGED), far=FamilySpec(recipe=HUB, optional=True))
    kept, notes = with_available_families(spec, problem_of=unreachable)
    assert list(kept.families) == ["near"]
    assert notes == ("family 'far' is left out: the hub cannot be reached",)


def test_nothing_changes_where_the_weights_can_be_had() -> None:
    spec = sweep(near=FamilySpec(recipe=PACKAGED), far=FamilySpec(recipe=HUB, optional=True))
    assert with_available_families(spec, problem_of=lambda _: "") == (spec, ())


def test_a_family_that_is_not_optional_is_never_asked_about() -> None:
    def fail(_: Architecture) -> str:
        raise AssertionError

    spec = sweep(far=FamilySpec(recipe=HUB))
    assert with_available_families(spec, problem_of=fail) == (spec, ())


def test_a_sweep_without_any_family_left_is_an_error() -> None:
    spec = sweep(far=FamilySpec(recipe=HUB, optional=True))
    with pytest.raises(SpecError, match=r"'far' is left out: the hub .*; no family is left"):
        with_available_families(spec, problem_of=unreachable)


CHOICES = {"type": "categorical"}


def test_a_searched_model_is_asked_about_instead_of_the_recipes() -> None:
    models = ["timm:resnet18", "timm:resnet34"]
    searched = FamilySpec(
        recipe={"pretrained": "hub"}, space={"model": {**CHOICES, "choices": models}}, optional=True
    )
    asked: list[str] = []

    def problem_of(architecture: Architecture) -> str:
        asked.append(architecture.model)
        return "not there" if architecture.model == models[1] else ""

    spec = sweep(near=FamilySpec(), far=searched)
    kept, notes = with_available_families(spec, problem_of=problem_of)
    assert (asked, list(kept.families)) == (models, ["near"])
    assert notes == ("family 'far' is left out: not there",)
    assert with_available_families(spec, problem_of=lambda _: "") == (spec, ())


@pytest.mark.parametrize("by_all", [False, True])
def test_searched_weights_are_asked_about(by_all: bool, tmp_path: Path) -> None:
    missing = str(tmp_path / "weights.safetensors")
    space = {"pretrained": {**CHOICES, "choices": ["", missing]}}
    far = FamilySpec(space={} if by_all else space, optional=True)
    near = FamilySpec(recipe={"pretrained": ""})
    spec = SweepSpec(name="x", families={"near": near, "far": far}, space=space if by_all else {})
    kept, notes = with_available_families(spec)
    assert list(kept.families) == ["near"]
    assert notes == (f"family 'far' is left out: {missing} is missing",)


def test_weights_that_no_trial_can_draw_are_not_asked_about() -> None:
    """The hub is searched beside one network only, and never beside ours."""
    space = {
        "model": {**CHOICES, "choices": ["convnet", "timm:resnet18", "timm:resnet34"]},
        "pretrained": {
            **CHOICES,
            "choices": ["", "hub"],
            "when": {"model": ["convnet", "timm:resnet18"]},
        },
    }
    spec = sweep(only=FamilySpec(space=space, optional=True))
    (network,) = initial_networks(spec, "only")
    assert (network.model, network.pretrained) == ("timm:resnet18", "hub")


def test_the_shipped_sweep_for_photographs_searches_the_hub_on_a_gpu_where_it_can() -> None:
    spec = load_spec("images", profile="gpu")
    assert spec.families["mobilenet"].optional
    kept, _ = with_available_families(spec, problem_of=unreachable)
    assert kept.families == load_spec("images", profile="cpu").families


def test_a_package_or_file_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    assert weights_problem(Architecture(**PACKAGED)) == ""
    path = tmp_path / "weights.safetensors"
    asked = Architecture(model="timm:resnet18", pretrained=str(path))
    assert weights_problem(asked) == f"{path} is missing"
    path.write_bytes(b"")
    assert weights_problem(asked) == ""


def test_a_package_without_weights_of_the_model_is_an_error() -> None:
    with pytest.raises(SpecError, match="no weights for model 'convnet'"):
        weights_problem(Architecture(pretrained="package"))
