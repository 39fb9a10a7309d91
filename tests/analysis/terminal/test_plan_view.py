"""The plan of a run, shown on terminals of any width."""

import io

import pytest
from rich.console import Console

from analysis.terminal.plan_view import plan_view
from search.space.spec import load_spec
from search.timetable.preview import Preview
from trainables.data.source_sizes import SourceSizes


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("classes", [3, 200])
def test_a_plan_is_shown_whole_at_any_width(width: int, classes: int) -> None:
    long = "a_class_of_a_very_long_name_that_has_no_spaces_at_all"
    preview = Preview(
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
    console.print(plan_view(preview))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    text = " ".join("".join(lines).split())
    assert "…" not in text
    words = " ".join(line[9:].strip() for line in lines)
    assert "ledger 43 min, report 43 min" in " ".join(words.split())
    assert "from 40×30 to 640×480 pixels, median 640×480" in " ".join(words.split())
    rest = "and 170 larger classes of 45 to 214 images each"
    assert (rest in " ".join(" ".join(lines).split())) == (classes == 200)
