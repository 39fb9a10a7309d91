"""A run records the initial weights that its space and its student name."""

from pathlib import Path

from quorum.workspace.checks import weights_of
from search.space.spec import spec_from_mapping
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
