import io
import re
import shlex
from pathlib import Path

from rich.console import Console

from analysis.facts.ladder import Level
from analysis.terminal.ladder_table import ladder_table, ladder_view, target_text
from search.space.sections import TargetSpec
from search.space.sweep_files import load_spec
from tests.rendering import shown
from tests.synthetic.ledger_values import made_row
from trainables.records import RunFolder

FLOOR = TargetSpec(accuracy=0.9)
ROW = made_row("ensemble", accuracy=0.95, accuracy_interval=(0.93, 0.96))


def level(**values: object) -> Level:
    return Level(sweep="level3", description="", target=FLOOR, **values)  # type: ignore[arg-type]


def test_targets_rise_from_level_to_level() -> None:
    targets = [load_spec(f"level{number}").target for number in range(1, 6)]
    assert [target_text(target) for target in targets if target] == [
        "≥ 85%", "≥ 90%\n> level1", "≥ 91%", "≥ 93%", "≥ ensemble\n− 1 pt",
    ]  # fmt: skip


def test_a_level_shows_its_accuracy_run_and_cost() -> None:
    done = level(
        row=ROW, run=RunFolder(Path("later")), runs=2, seconds=185.0, code_version="0.1+abcdef123"
    )
    text = "\n".join(shown(ladder_table([done]), 100))
    for part in ("95.0% (93.0–96.0)", "reached", "3m05s", "later", "abcdef1", "latest of 2 runs"):
        assert part in text


def test_a_level_without_a_run_shows_its_command() -> None:
    folder = Path("/a long folder of photographs/with many parts/that no column has room for")
    console = Console(file=io.StringIO(), width=60, record=True)
    console.print(ladder_view([level(data=str(folder))]), crop=False)
    (line,) = [line for line in console.export_text().splitlines() if "quorum" in line]
    assert shlex.split(line) == ["level3", "quorum", "run", "level3", "--data", str(folder)]
    assert "not run" in "\n".join(shown(ladder_table([level()]), 100))


def test_the_first_changed_settings_are_named() -> None:
    settings = ("trials=1", "recipe.width=8", "recipe.cutout=0", "rungs=[3]", "seed=1", "members=2")
    changed = level(row=ROW, run=RunFolder(Path("mine")), settings=settings)
    (line,) = [line for line in shown(ladder_table([changed]), 140) if "cutout" in line]
    words = re.split(r"[ ,:]+", line)
    start = words.index("trials")
    assert words[start : start + 4] == ["trials", "width", "cutout", "rungs"]
    assert "2" in words[start + 4 :], "two more"
    assert not {"seed", "members"} & set(words)
