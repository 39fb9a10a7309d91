"""The ladder as a table for the terminal."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from analysis.facts.ladder import Level
from analysis.terminal.layout import DIM, labelled_line, name_text, titled_table, verdict_text
from analysis.text.cells import difference_value
from analysis.text.labels import stage_label
from common.formats import DASH, percent, percent_range, plural, short_duration
from common.printable import printable
from ensemble.selection.comparison import Comparison
from search.space.sections import TargetSpec

MOST_KEYS = 4
"""Maximum number of changed settings named; `quorum ladder --json` lists all."""


def ladder_view(levels: Sequence[Level]) -> RenderableType:
    """Return the ladder as a table, and below it the commands of the levels that were not run.

    Print it with `crop=False`, so that commands can be copied whole.
    """
    missing = [level for level in levels if level.run is None]
    lines = [labelled_line(level.sweep, level.command) for level in missing]
    return Group(ladder_table(levels), *([Text("")] if lines else []), *lines)


def ladder_table(levels: Sequence[Level]) -> Table:
    """Return one row per level: its target, the result on test, and the cost."""
    table = titled_table("The ladder: accuracy on test, 95% intervals")
    for header in ("level", "target", "test accuracy", "verdict", "cost", "run"):
        table.add_column(header)
    for level in levels:
        style = DIM if level.row is None else None
        table.add_row(
            name_text(level.sweep),
            target_text(level.target),
            _result(level),
            Text(level.verdict, style=style) if style else verdict_text(level.verdict),
            short_duration(level.seconds) if level.row else DASH,
            _run(level),
        )
    table.caption = "each level shows its latest run; cost is wall-clock time"
    return table


def target_text(target: TargetSpec) -> str:
    """Return a target's conditions, one per line: `≥ 90%`, `> level1`."""
    parts = []
    if target.accuracy is not None:
        parts.append(f"≥ {percent(target.accuracy, 0)}")
    if target.over:
        parts.append(f"> {target.over}")
    if target.max_loss is not None:
        parts.append(f"≥ ensemble\n− {100 * target.max_loss:g} pt")
    return "\n".join(parts)


def _result(level: Level) -> Text:
    if level.row is None:
        return Text(DASH)
    interval = percent_range(level.row.accuracy_interval)
    lines = [stage_label(level.row.stage)]
    if level.gain is not None:
        lines += _difference(level.gain, f"vs {level.target.over}")
    if level.loss is not None and level.target.max_loss is not None:
        lines += _difference(level.loss, "vs ensemble")
    accuracy = f"{percent(level.row.accuracy)} ({interval})"
    return Text.assemble(accuracy, *((f"\n{line}", DIM) for line in lines))


def _difference(difference: Comparison, other: str) -> list[str]:
    value, interval = difference_value(difference, 1, unit="pt")
    return [f"{value} {other}", f"({interval})"]


def _run(level: Level) -> Text:
    if level.run is None:
        return Text(DASH)
    code = level.code_version.partition("+")[2][:7] or level.code_version
    lines = [printable(level.dataset), f"code {code}"]
    if level.settings:
        lines.append(f"changed: {_changed(level.settings)}")
    if level.runs > 1:
        lines.append(f"latest of {plural(level.runs, 'run')}")
    return Text.assemble(printable(level.run.name), *((f"\n{line}", DIM) for line in lines))


def _changed(settings: Sequence[str]) -> str:
    """Name the first keys of some settings: `image_size, pretrained and 3 more`."""
    keys = [setting.partition("=")[0].rpartition(".")[2] for setting in settings]
    more = len(keys) - MOST_KEYS
    return ", ".join(keys) if more <= 0 else f"{', '.join(keys[:MOST_KEYS])} and {more} more"
