"""The ladder: targets, verdicts and what is read of finished runs."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.facts.ladder import Rung, ladder
from analysis.terminal.ladder_table import asked, ladder_table
from quorum.workspace.listing import Runs
from search.space.spec import TargetSpec, load_spec
from tests.synthetic.predictions import Shape
from tests.synthetic.run import write_run
from trainables.records import RunFolder

ALONE = Shape(classes=4, val=60, holdout=200, test=120, trials=4, seeds=False, distilled=False)
FLOOR = TargetSpec(accuracy=0.9)


def rung(target: TargetSpec, accuracy: float, low: float, **more: Any) -> Rung:
    row = {"stage": target.row, "accuracy": accuracy, "accuracy_interval": [low, accuracy + 0.01]}
    return Rung(sweep="x", description="", target=target, row=row, **more)


def difference(value: float, low: float) -> dict[str, Any]:
    return {"value": value, "interval": [low, 2 * value - low], "metric": "accuracy"}


@pytest.mark.parametrize(
    ("accuracy", "low", "verdict"),
    [
        (0.95, 0.93, "reached"),
        (0.905, 0.895, "reached, within error"),
        (0.899, 0.88, "not reached"),
    ],
)
def test_an_accuracy_is_held_against_its_floor(accuracy: float, low: float, verdict: str) -> None:
    assert rung(FLOOR, accuracy, low).verdict == verdict


def test_every_part_of_a_target_counts() -> None:
    above = TargetSpec(accuracy=0.9, over="y")
    assert rung(above, 0.95, 0.93, gain=difference(0.02, 0.01)).verdict == "reached"
    assert rung(above, 0.95, 0.93, gain=difference(0.02, -0.01)).verdict == "reached, within error"
    assert rung(above, 0.95, 0.93, gain=difference(-0.02, -0.03)).verdict == "not reached"
    assert rung(above, 0.95, 0.93).verdict == "not reached", "nothing to compare it with"
    close = TargetSpec(row="student", max_loss=0.01)
    assert rung(close, 0.9, 0.8, loss=difference(-0.005, -0.009)).verdict == "reached"
    assert rung(close, 0.9, 0.8, loss=difference(-0.02, -0.03)).verdict == "not reached"


def test_levels_rise_from_one_to_five() -> None:
    levels = [load_spec(f"level{number}") for number in range(1, 6)]
    assert all(level.target is not None for level in levels)
    words = [asked(level.target) for level in levels if level.target]
    floors = ["≥ 85%", "≥ 90%\n> level1", "≥ 91%", "≥ 93%", "≥ ensemble\n− 1 pt"]
    assert words == floors


def test_rows_come_from_the_latest_finished_runs(tmp_path: Path) -> None:
    assert {found.verdict for found in ladder(Runs(tmp_path))} == {"not run"}
    for sweep in ("level1", "level2"):
        spec = load_spec(sweep).with_values(trials=4, rungs=(3, 9, 27))
        folder = write_run(tmp_path / f"{sweep}-mine", shape=ALONE, spec=spec)
        if sweep == "level1":
            again = write_run(tmp_path / "later", shape=ALONE, spec=spec)
            text = again.journal.read_text().replace('"time": 17900', '"time": 17910')
            again.journal.write_text(text)
    first, second, *others = ladder(Runs(tmp_path))
    assert (first.run and first.run.name, first.runs) == ("later", 2)
    ledger = json.loads((folder.ledger / "ledger.json").read_text())
    assert second.row == ledger["rows"][0]
    assert second.gain is not None
    accuracies = [found.row["accuracy"] for found in (first, second) if found.row]
    assert second.gain["value"] == pytest.approx(accuracies[1] - accuracies[0])
    assert [found.verdict for found in others] == ["not run"] * 3
    assert ladder(Runs(tmp_path), data="elsewhere")[0].run is None
    console = Console(width=100, record=True, file=StringIO())
    console.print(ladder_table([first, second, *others]))
    told = console.export_text()
    assert "later" in told
    assert "latest of 2 runs" in told
    assert "quorum run level3" in told
    assert json.dumps(second.to_mapping())
    assert second.command == "quorum run level2", "its journal does not tell more"


def test_what_was_changed_is_named() -> None:
    settings = ("trials=1", "recipe.width=8", "recipe.cutout=0", "rungs=[3]", "seed=1", "members=2")
    console = Console(width=140, record=True, file=StringIO())
    found = rung(FLOOR, 0.95, 0.93, run=RunFolder(Path("mine")), settings=settings)
    console.print(ladder_table([found]))
    assert "changed: trials, width, cutout, rungs and 2 more" in console.export_text()
