"""The ladder: targets, verdicts and the results of finished runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.facts.ladder import Level, ladder
from ensemble.ledger.ledger import read_ledger
from ensemble.selection.comparison import Comparison
from quorum.workspace.listing import Runs
from search.space.sections import TargetSpec
from search.space.sweep_files import load_spec
from tests.synthetic.ledger_values import made_comparison, made_row
from tests.synthetic.predictions import Shape
from tests.synthetic.run import write_run

SINGLE = Shape(classes=4, val=60, holdout=200, test=120, trials=4, seeds=False, distilled=False)
FLOOR = TargetSpec(accuracy=0.9)


def level(target: TargetSpec, accuracy: float, low: float, **more: Any) -> Level:
    row = made_row(target.row, accuracy=accuracy, accuracy_interval=(low, accuracy + 0.01))
    return Level(sweep="x", description="", target=target, row=row, **more)


def difference(value: float, low: float) -> Comparison:
    return made_comparison("x", "y", "accuracy", value, (low, 2 * value - low))


@pytest.mark.parametrize(
    ("accuracy", "low", "verdict"),
    [
        (0.95, 0.93, "reached"),
        (0.905, 0.895, "reached, within error"),
        (0.899, 0.88, "not reached"),
    ],
)
def test_an_accuracy_is_compared_with_its_floor(accuracy: float, low: float, verdict: str) -> None:
    assert level(FLOOR, accuracy, low).verdict == verdict


def test_every_condition_of_a_target_counts() -> None:
    above = TargetSpec(accuracy=0.9, over="y")
    assert level(above, 0.95, 0.93, gain=difference(0.02, 0.01)).verdict == "reached"
    assert level(above, 0.95, 0.93, gain=difference(0.02, -0.01)).verdict == "reached, within error"
    assert level(above, 0.95, 0.93, gain=difference(-0.02, -0.03)).verdict == "not reached"
    assert level(above, 0.95, 0.93).verdict == "not reached", "nothing to compare it with"
    close = TargetSpec(row="student", max_loss=0.01)
    assert level(close, 0.9, 0.8, loss=difference(-0.005, -0.009)).verdict == "reached"
    assert level(close, 0.9, 0.8, loss=difference(-0.02, -0.03)).verdict == "not reached"


@pytest.mark.parametrize(
    ("sweep", "reached"),
    [("cifar10", {"level4"}), ("level4", {"level4"}), ("level5", {"level4", "level5"}),
     ("digits", set()), ("level3", {"level3"})],
)  # fmt: skip
def test_a_run_counts_for_every_level_whose_search_and_results_it_has(
    tmp_path: Path, sweep: str, reached: set[str]
) -> None:
    spec = load_spec(sweep).with_values(trials=4, rungs=(3, 9, 27))
    write_run(tmp_path / "mine", spec=spec)
    levels = {each.sweep: each for each in ladder(Runs(tmp_path))}
    assert {name for name, each in levels.items() if each.run} == reached
    row = levels["level4"].row
    assert (None if row is None else row.stage) == ("ensemble" if "level4" in reached else None)


def test_levels_come_from_the_latest_finished_runs(tmp_path: Path) -> None:
    assert {each.verdict for each in ladder(Runs(tmp_path))} == {"not run"}
    for sweep in ("level1", "level2"):
        spec = load_spec(sweep).with_values(trials=4, rungs=(3, 9, 27))
        folder = write_run(tmp_path / f"{sweep}-mine", shape=SINGLE, spec=spec)
        if sweep == "level1":
            again = write_run(tmp_path / "later", shape=SINGLE, spec=spec)
            text = again.journal.read_text().replace('"time": 17900', '"time": 17910')
            again.journal.write_text(text)
    first, second, *others = ladder(Runs(tmp_path))
    assert (first.run and first.run.name, first.runs) == ("later", 2)
    assert second.row == read_ledger(folder.ledger / "ledger.json").rows[0]
    assert second.gain is not None
    accuracies = [each.row.accuracy for each in (first, second) if each.row]
    assert second.gain.value == pytest.approx(accuracies[1] - accuracies[0])
    assert [each.verdict for each in others] == ["not run"] * 3
    assert others[0].command == "quorum run level3"
    assert second.command == "quorum run level2", "its journal records no other command"
    assert json.loads(json.dumps(second.to_mapping()))["accuracy"] == accuracies[1]
    assert ladder(Runs(tmp_path), data="elsewhere")[0].run is None
