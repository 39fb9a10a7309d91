"""A run records the initial weights that its space and its student name."""

from pathlib import Path
from typing import Any

from quorum.workspace.checks import weights_of
from search.space.sweep_files import spec_from_mapping
from trainables.initial_weights import PACKAGED, weights_identity
from trainables.recipe import Recipe

LITE0 = PACKAGED[0]
KNOWN = {LITE0.label: LITE0.sha256}


def test_packaged_weights_are_recorded_for_each_packaged_model_of_the_space() -> None:
    models = ["convnet", "timm:resnet18", LITE0.model]
    space = {
        "model": {"type": "categorical", "choices": models},
        "pretrained": {"type": "categorical", "choices": ["", "hub", "package"]},
    }
    assert weights_of(spec_from_mapping({"name": "x", "space": space})) == KNOWN
    recipe = {"model": LITE0.model, "pretrained": "package"}
    assert weights_of(spec_from_mapping({"name": "x", "recipe": recipe})) == KNOWN
    assert weights_of(spec_from_mapping({"name": "x", "student": {"recipe": recipe}})) == KNOWN
    assert weights_of(spec_from_mapping({"name": "x"})) == {}


def test_files_are_recorded_by_path(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    spec = spec_from_mapping({"name": "x", "recipe": {"pretrained": str(path)}})
    assert weights_of(spec) == {str(path): None}
    path.write_bytes(b"weights")
    assert weights_of(spec) == weights_identity(Recipe(pretrained=str(path)).architecture)


def test_weights_of_every_family_are_recorded(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.safetensors").write_bytes(b"weights")
    spec = spec_from_mapping(
        {
            "name": "x",
            "families": {
                "scratch": {"recipe": {}},
                "package": {"recipe": {"model": LITE0.model, "pretrained": "package"}},
                "own": {"recipe": {"pretrained": "~/own.safetensors"}},
                "searched": {
                    "recipe": {"model": "timm:resnet18"},
                    "space": {"pretrained": {"type": "categorical", "choices": ["", "b.pth"]}},
                },
            },
        }
    )
    weights = weights_of(spec)
    assert weights.keys() == {LITE0.label, "~/own.safetensors", "b.pth"}
    assert weights["~/own.safetensors"] is not None
    assert weights["b.pth"] is None
