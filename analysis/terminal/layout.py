"""Tables, lines and paths in the shared style of terminal output."""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from analysis.text.labels import Tone, tone
from common.commands import Value, command
from common.printable import printable

DIM = "dim"
STYLES: Mapping[Tone, str] = {"good": "green", "bad": "red", "open": "yellow", "plain": ""}


def name_text(name: str, style: str = "") -> Text:
    """Return a name that others chose, on one line: its control characters become escapes."""
    return Text(printable(name), style=style)


def titled_table(title: str) -> Table:
    """Return an empty table with a title above and room for a caption below."""
    return Table(
        title=Text(f"\n{title}"), title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0), pad_edge=False,
        show_edge=False, title_style="bold", caption_style=DIM,
    )  # fmt: skip


def bare_table(*headers: str, numbers: bool = False) -> Table:
    """Return an empty table without lines; long texts wrap.

    Columns headed `size` or without a header are right-aligned; with `numbers`, all but the
    first column are.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM)
    for index, header in enumerate(headers):
        if index and (numbers or header in ("size", "")):
            table.add_column(header, justify="right", no_wrap=True)
        else:
            table.add_column(header, overflow="fold")
    return table


def facts_grid(facts: Iterable[tuple[str, str]]) -> Table:
    """Return names with their values, one per line; long values wrap."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(style="bold", no_wrap=True, min_width=8)
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(name, name_text(value))
    return grid


def verdict_text(verdict: str) -> Text:
    """Colour a verdict by its tone."""
    return Text(verdict, style=STYLES[tone(verdict)])


def stacked(first: str, second: str) -> Text:
    """Set a second value, dimmed, below the first."""
    return Text.assemble(first, "\n", (second, DIM))


def labelled_line(name: str, text: str) -> Text:
    """Return a line that is never wrapped or cut, so that it can be copied whole."""
    return Text.assemble((f"{name:<9}", "bold"), printable(text), no_wrap=True, overflow="ignore")


def relative(path: Path) -> str:
    """Return a path, relative to the current folder if it lies below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def command_line(*words: str, program: str = "quorum", **options: Value) -> str:
    """Return a command line to copy, quoted for the shell, with the path of its program."""
    path = relative(Path(sys.executable).parent / program)
    return command(*words, program=path, **options)
