"""Names are data: no view and no line of a command lets them act on the terminal."""

import functools
import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from rich.console import RenderableType
from rich.text import Text

from analysis.facts.ladder import Level
from analysis.terminal.console import PlainConsole
from analysis.terminal.ladder_table import ladder_view
from analysis.terminal.layout import facts_grid, labelled_line, titled_table
from analysis.terminal.ledger_tables import (
    differences_table,
    gates_table,
    ledger_table,
    selection_table,
)
from analysis.terminal.live_display import LiveDisplay
from analysis.terminal.plan_view import plan_view
from analysis.terminal.status import clean_view, runs_view
from common.printable import printable
from ensemble.selection.candidates import Request
from ensemble.selection.decision import select_ensemble
from ensemble.selection.selection import Selection
from journal.events import StageReported
from search.space.sections import TargetSpec
from search.space.sweep_files import load_spec
from search.timetable.preview import Preview
from tests.names import ODD_NAMES, controls_in
from tests.pools import synthetic_pool
from tests.synthetic.ledger_values import made_gate, made_ledger, made_row
from trainables.data.source_sizes import SourceSizes
from trainables.records import RunFolder

SIZES = SourceSizes.from_counts({(32, 32, "RGB"): 9})


def printed(*views: RenderableType, encoding: str = "utf-8", width: int = 400) -> str:
    """Return what a console without colours writes to a stream of this encoding."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace")
    console = PlainConsole(file=stream, width=width)
    for view in views:
        console.print(view, crop=False)
    stream.flush()
    return raw.getvalue().decode(encoding)


def every_view(name: str, selection: Selection) -> list[tuple[RenderableType, str]]:
    """Return views that show `name`, each with the text that it must show."""
    line = printable(name)
    members = tuple(replace(member, name=name) for member in selection.members[:1])
    plan = Preview(
        spec=load_spec("digits"), name=name, image_size=8, source_sizes=SIZES,
        sizes={"train": 6}, classes={name: (6,), "b": (1,)}, trials=None, rungs=(2, 7),
        student_epochs=9, seconds={"sweep": 1.0},
    )  # fmt: skip
    row = made_row("ensemble", accuracy=0.95, accuracy_interval=(0.93, 0.96))
    level = Level(
        sweep=name, description="", target=TargetSpec(accuracy=0.9), row=row, dataset=name,
        run=RunFolder(Path("x")),
    )  # fmt: skip
    ledger = made_ledger(made_row(name), gates=(made_gate(name=name),))
    return [
        (selection_table(replace(selection, members=members)), line),
        (plan_view(plan), line),
        (ladder_view([level]), line),
        (ladder_view([replace(level, run=None, row=None, data=name)]), ""),
        (clean_view([(name, 7)], dry=True), line),
        (facts_grid([("note", name)]), line),
        (labelled_line("report", name), line),
        (ledger_table(ledger), ""),
        (gates_table(ledger), ""),
        (differences_table(ledger), ""),
        (name, ""),
        (Text(name), ""),
    ]


@functools.cache
def an_ensemble() -> Selection:
    return select_ensemble(synthetic_pool(), Request(members=2))


@settings(max_examples=60)
@given(ODD_NAMES)
def test_no_view_obeys_a_name(name: str) -> None:
    for view, line in every_view(name, an_ensemble()):
        text = printed(view)
        assert not controls_in(text)
        # Tables trim the spaces at the end of a cell.
        assert line.rstrip() in text


@settings(max_examples=20)
@given(ODD_NAMES)
def test_every_view_can_be_printed_in_ascii(name: str) -> None:
    for view, _ in every_view(name, an_ensemble()):
        assert printed(view, encoding="ascii", width=100).isascii()


def test_colours_are_those_of_the_view_only() -> None:
    stream = io.StringIO()
    console = PlainConsole(file=stream, force_terminal=True, width=80)
    console.print(Text("\x1b[31mred\x1b[0m", style="green"))
    assert stream.getvalue().count("\x1b") == 2  # on and off
    assert r"\x1b[31mred" in stream.getvalue()


def test_an_odd_folder_of_runs_is_listed(tmp_path: Path) -> None:
    for name in ("[red]a", "b\x1b[31m\ny", "\udcff"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "sweep.yaml").write_text("")
    sizes = [(RunFolder(path), 1) for path in sorted(tmp_path.iterdir())]
    text = printed(runs_view(sizes, 0.0))
    assert not controls_in(text)
    for name in ("[red]a", r"b\x1b[31m\ny", r"\xff"):
        assert name in text


@pytest.mark.parametrize("interactive", [False, True])
def test_the_live_display_obeys_no_detail(interactive: bool) -> None:
    stream = io.StringIO()
    with LiveDisplay(stream, load_spec("digits"), interactive=interactive) as display:
        display.apply(
            StageReported(time=1.0, stage="sweep", status="started", detail="[red]\x1b[31m\u202ex")
        )
    assert "\x1b[31m" not in stream.getvalue()
    assert "\u202e" not in stream.getvalue()


def test_titles_and_captions_are_texts() -> None:
    table = titled_table("[red]title")
    table.caption = "[blue]caption"
    table.add_column("[green]head")
    table.add_row("[x]cell of some width")
    text = printed(table)
    for name in ("[red]title", "[blue]caption", "[green]head", "[x]cell"):
        assert name in text
