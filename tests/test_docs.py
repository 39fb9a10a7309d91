"""The examples of docs/python.md run; tests/trainables/nets/test_custom.py runs the custom net."""

import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import quorum
from quorum import Outcome
from search.space.sweep_files import load_spec
from tests.docs import ROOT, python_blocks, yaml_blocks
from tests.tiny import TINY
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.recipe import Recipe
from trainables.stages import stage_at


@pytest.mark.slow
def test_the_examples_run(
    finished_run: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the page's blocks in order; resume a finished run instead of training on digits."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_run.folder.root, tmp_path / "runs" / "mine")
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(TINY))
    digit = load_dataset(DatasetSpec(name="digits")).images[0]
    Image.fromarray(digit).save(tmp_path / "photo.jpg")
    blocks = python_blocks("python.md")
    assert set(blocks) == {"0", "1", "2", "3", "4", "mynet.py", "own.py", "mydata.py"}
    new, resumed = 'time_budget="10m"', 'name="mine", resume=True, report=False, register=False'
    assert new in blocks["0"]
    blocks["0"] = blocks["0"].replace(new, resumed)
    names: dict[str, Any] = {}
    for name, code in blocks.items():
        if not name.endswith(".py"):
            exec(compile(code, f"docs/python.md, block {name}", "exec"), names)
    assert names["outcome"].ledger == finished_run.ledger
    assert list(names["table"].index) == [row.stage for row in finished_run.ledger.rows]
    assert names["prediction"].best in set("0123456789")
    assert names["again"].identical
    assert not names["status"].interrupted
    assert names["log_probs"].shape == (8, 10)
    assert 1 <= len(names["selection"].members) <= 3
    assert (tmp_path / "picked" / "selection.json").is_file()
    assert names["holdout"].shape == (400, 10)
    assert np.isfinite(names["holdout"]).all()


@pytest.mark.slow
def test_the_lines_of_the_readme_run(finished_run: Outcome) -> None:
    """Run README's Python block with a finished run in place of one on photographs."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    call = 'quorum.run("images", data="photos/", time_budget="2h")'
    assert call in code
    names: dict[str, Any] = {"finished": finished_run}
    exec(compile(code.replace(call, "finished"), "README.md", "exec"), names)
    assert names["outcome"] is finished_run
    parameters = inspect.signature(quorum.run).parameters
    assert {"data", "time_budget"} <= set(parameters)


def test_the_custom_data_set_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mydata.py").write_text(python_blocks("python.md")["mydata.py"])
    monkeypatch.syspath_prepend(tmp_path)
    images = load_dataset(DatasetSpec(name="mydata:load"), cache=tmp_path / "cache")
    assert images.images.shape == (400, 16, 16, 3)
    assert images.class_names == ("dark", "bright above")


def test_the_recipes_shown_are_recipes() -> None:
    recipes = [Recipe.from_mapping(yaml.safe_load(b)["recipe"]) for b in yaml_blocks("recipe.md")]
    assert [len(recipe.schedule.stages) for recipe in recipes] == [2, 2, 0]
    assert len(recipes[2].loss.superclasses) == 2
    sam = recipes[1]
    assert [sam.in_stage(i).optimizer.sam_rho for i in (0, 1)] == [0.0, 0.05]
    # Trials that end at the rungs before the last never reach SAM's stage.
    assert [stage_at(sam.schedule.stages, epoch) for epoch in (3, 9, 27)] == [0, 0, 1]


def test_the_sweep_with_a_family_more_can_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(next(block for block in yaml_blocks("transfer.md") if "extends" in block))
    spec = load_spec(str(path))
    assert set(spec.families) == {*load_spec("images").families, "hub"}
    assert spec.first_recipes()["hub"].architecture.drop_path == 0.1
