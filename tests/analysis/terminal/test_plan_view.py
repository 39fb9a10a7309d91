"""The plan of a run, shown on terminals of any width."""

import io
import re

import pytest
from rich.console import Console

from analysis.terminal.plan_view import plan_view
from analysis.text.sentences import source_sizes_text
from common.formats import rounded_duration
from search.space.sweep_files import load_spec
from search.timetable.preview import Preview
from trainables.data.source_sizes import SourceSizes


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("classes", [3, 200])
@pytest.mark.parametrize("sweep", ["digits", "images"])
def test_a_plan_is_shown_whole_at_any_width(width: int, classes: int, sweep: str) -> None:
    long = "a_class_of_a_very_long_name_that_has_no_spaces_at_all"
    preview = Preview(
        spec=load_spec(sweep),
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
    values = " ".join(" ".join(line[9:] for line in lines).split())
    for stage, seconds in preview.seconds.items():
        assert f"{stage} {rounded_duration(seconds)}" in values
    assert source_sizes_text(preview.source_sizes) in values
    for name in [*preview.spec.space, *preview.spec.families]:
        assert name in values
    end = " ".join(lines).rpartition(long)[2]
    left_out = ["170", "45", "214"]  # classes, and the images of the smallest and the largest
    assert (re.findall(r"\d+", end)[-3:] == left_out) == (classes == 200)
