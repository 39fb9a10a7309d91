"""A dry run says what a run would do, and leaves nothing behind."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from analysis.terminal.plan_view import plan_view
from quorum.cli import main as quorum
from search.space.spec import load_spec
from search.timetable.preview import Preview, preview
from trainables.data.source_sizes import SourceSizes


def test_the_counts_are_those_of_the_splits() -> None:
    found = preview(load_spec("digits"))
    assert dict(found.sizes) == {"train": 400, "val": 400, "holdout": 400, "test": 597}
    assert [sum(column) for column in zip(*found.classes.values(), strict=True)] == list(
        found.sizes.values()
    )
    assert (len(found.classes), found.image_size, found.trials) == (10, 16, 24)
    assert min(found.seconds.values()) > 0
    budget = preview(load_spec("digits"), time_budget=600, stages=("sweep",))
    assert (budget.trials, list(budget.seconds)) == (None, ["sweep"])
    assert 500 < budget.seconds["sweep"] <= 600  # the rehearsal has taken some


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("classes", [3, 200])
def test_nothing_is_cut_at_any_width(width: int, classes: int) -> None:
    long = "a_class_of_a_very_long_name_that_has_no_spaces_at_all"
    found = Preview(
        spec=load_spec("digits"),
        name="photographs",
        image_size=32,
        source_sizes=SourceSizes.from_counts({(640, 480, "RGB"): 900, (40, 30, "L"): 60}),
        sizes={"train": 600, "val": 100, "holdout": 100, "test": 160},
        classes={f"{i}_{long}": (i, 5, 5, 5) for i in range(classes)},
        trials=None,
        rungs=(2, 7),
        student_epochs=9,
        seconds=dict.fromkeys(("sweep", "seeds", "select", "distill", "ledger", "report"), 2600.0),
    )
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(plan_view(found))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    told = " ".join("".join(lines).split())
    assert "…" not in told
    words = " ".join(line[9:].strip() for line in lines)
    assert "ledger 43 min, report 43 min" in " ".join(words.split())
    assert "from 40×30 to 640×480 pixels, median 640×480" in " ".join(words.split())
    rest = "and 170 larger classes of 45 to 214 images each"
    assert (rest in " ".join(" ".join(lines).split())) == (classes == 200)


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    assert quorum.main(["run", "digits", "--dry-run", "--runs", str(runs)]) == 0
    told = capsys.readouterr().out
    assert "train 400 · val 400 · holdout 400 · test 597" in told
    assert "forecast" in told
    assert not runs.exists()
