"""A damaged decision is one line that names its file, and leads nowhere else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import RunError
from ensemble.deployment.card import write_card
from ensemble.deployment.released import FILE, released_model
from tests.command_line import user_error
from tests.ensemble.deployment.test_card import card

WHY = {"because": "it is the best"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a student's folder, and another beside it."""
    for name in ("student", "student/single", "x"):
        write_card(tmp_path / name, replace(card(), released="fp32"))
    return tmp_path / "student"


def decide(folder: Path, decision: Any) -> None:
    (folder / FILE).write_text(json.dumps(decision))


@pytest.mark.parametrize("file", ["model.onnx", "single/model.onnx", "./single/../model.onnx"])
def test_a_file_inside_the_folder_is_released(folder: Path, file: str) -> None:
    decide(folder, {"file": file, "decision": WHY})
    assert released_model(folder)[0].resolve() == (folder / file).resolve()


@pytest.mark.parametrize(
    "decision",
    [
        {},
        {"file": 5},
        {"file": 5, "decision": WHY},
        {"file": None, "decision": WHY},
        {"file": ["model.onnx"], "decision": WHY},
        {"file": "model.onnx"},
        {"file": "", "decision": "because"},
        {"file": "", "decision": {"because": 5}},
        {"file": "", "decision": {}},
        {"decision": WHY},
        {"file": "../x/model.onnx", "decision": WHY},
        {"file": "../../x/model.onnx", "decision": WHY},
        {"file": "single/../../x/model.onnx", "decision": WHY},
        {"file": ".", "decision": WHY},
        {"file": "..", "decision": WHY},
        {"file": "/", "decision": WHY},
        {"file": "\0/model.onnx", "decision": WHY},
        {"file": "\ud800/model.onnx", "decision": WHY},
    ],
)
def test_a_damaged_decision_is_one_line(
    folder: Path, decision: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    decide(folder, decision)
    with pytest.raises(RunError, match=r"release\.json is damaged: .*; restore it"):
        released_model(folder)
    assert str(folder / FILE) in user_error(capsys, "predict", folder, "a.png")


def test_an_absolute_path_and_a_link_lead_nowhere_else(folder: Path) -> None:
    other = folder.parent / "x"
    decide(folder, {"file": str(other / "model.onnx"), "decision": WHY})
    with pytest.raises(RunError, match="file must lie in"):
        released_model(folder)
    (folder / "link").symlink_to(other)
    decide(folder, {"file": "link/model.onnx", "decision": WHY})
    with pytest.raises(RunError, match="file must lie in"):
        released_model(folder)
