"""The examples of docs/python.md run as they stand; the sweep of a net runs in test_custom.py."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from quorum import Outcome, stages
from tests.docs import python_blocks, yaml_blocks
from tests.tiny import TINY
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.recipe import Recipe


@pytest.mark.slow
def test_the_examples_run_as_they_stand(
    finished_run: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Registry and report have tests of their own; all else of the finished run is found there.
    monkeypatch.setattr(stages, "register", lambda run: None)
    monkeypatch.setattr(stages, "report", lambda run: None)
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(TINY))
    shutil.copytree(finished_run.folder.root, tmp_path / "runs" / "mine")
    blocks = python_blocks("python.md")
    names: dict[str, Any] = {}
    for name, code in blocks.items():
        if not name.endswith(".py"):
            exec(compile(code, f"docs/python.md, block {name}", "exec"), names)
    assert names["outcome"].ledger == finished_run.ledger
    assert names["log_probs"].shape == (8, 10)
    assert 1 <= len(names["selection"]["members"]) <= 3
    assert (tmp_path / "picked" / "selection.json").is_file()
    assert names["holdout"].shape == (400, 10)
    assert np.isfinite(names["holdout"]).all()
    assert set(blocks) == {"0", "1", "2", "3", "mynet.py", "own.py", "mydata.py"}


def test_the_data_set_of_ones_own_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mydata.py").write_text(python_blocks("python.md")["mydata.py"])
    monkeypatch.syspath_prepend(tmp_path)
    images = load_dataset(DatasetSpec(name="mydata:load"), cache=tmp_path / "cache")
    assert images.images.shape == (400, 16, 16, 3)
    assert images.class_names == ("dark", "bright above")


def test_the_recipes_shown_are_recipes() -> None:
    recipes = [Recipe.from_mapping(yaml.safe_load(b)["recipe"]) for b in yaml_blocks("recipe.md")]
    assert [len(recipe.schedule.stages) for recipe in recipes] == [2, 0]
    assert len(recipes[1].loss.superclasses) == 2
