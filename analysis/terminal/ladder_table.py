"""The ladder as a table for the terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from analysis.facts.ladder import Rung
from analysis.terminal.tables import BAD, DIM, GOOD, plain_table
from analysis.text.wording import Row, difference_value, label
from common.formats import DASH, percent, percent_range, plural, short_duration
from search.space.spec import TargetSpec

COLORS = {"reached": GOOD, "reached, within error": "yellow", "not reached": BAD, "not run": DIM}

MOST_KEYS = 4
"""Of changed values that are named; all of them are in `quorum ladder --json`."""


def ladder_table(rungs: Sequence[Rung]) -> Table:
    """One level a row: what it asks for, what was reached on test, at what cost."""
    table = plain_table("The ladder: accuracy on test, 95% intervals")
    for header in ("level", "asks for", "test accuracy", "verdict", "cost", "run"):
        table.add_column(header)
    for rung in rungs:
        table.add_row(
            rung.sweep,
            asked(rung.target),
            _reached(rung),
            Text(rung.verdict, style=COLORS[rung.verdict]),
            short_duration(rung.seconds) if rung.row else DASH,
            _run(rung),
        )
    table.caption = "of several runs of a level the latest counts; cost is wall-clock time"
    return table


def asked(target: TargetSpec) -> str:
    """A target in words."""
    parts = []
    if target.accuracy is not None:
        parts.append(f"≥ {percent(target.accuracy, 0)}")
    if target.over:
        parts.append(f"> {target.over}")
    if target.max_loss is not None:
        parts.append(f"≥ ensemble\n− {100 * target.max_loss:g} pt")
    return "\n".join(parts)


def _reached(rung: Rung) -> Text:
    if rung.row is None:
        return Text(DASH)
    accuracy = f"{percent(rung.row['accuracy'])} ({percent_range(rung.row['accuracy_interval'])})"
    lines = [label(rung.row["stage"])]
    if rung.gain is not None:
        lines += _difference(rung.gain, f"over {rung.target.over}")
    if rung.loss is not None and rung.target.max_loss is not None:
        lines += _difference(rung.loss, "to ensemble")
    return Text.assemble(accuracy, *((f"\n{line}", DIM) for line in lines))


def _difference(found: Row, other: str) -> list[str]:
    value, interval = difference_value(found, 1, unit="pt")
    return [f"{value} {other}", f"({interval})"]


def _run(rung: Rung) -> Text:
    if rung.run is None:
        return Text(rung.command, style=DIM)
    code = rung.code_version.partition("+")[2][:7] or rung.code_version
    about = [rung.dataset, f"code {code}"]
    if rung.settings:
        about.append(f"changed: {_changed(rung.settings)}")
    if rung.runs > 1:
        about.append(f"latest of {plural(rung.runs, 'run')}")
    return Text.assemble(rung.run.name, *((f"\n{line}", DIM) for line in about))


def _changed(settings: Sequence[str]) -> str:
    """The first keys of some settings: `image_size, pretrained and 3 more`."""
    keys = [setting.partition("=")[0].rpartition(".")[2] for setting in settings]
    more = len(keys) - MOST_KEYS
    return ", ".join(keys) if more <= 0 else f"{', '.join(keys[:MOST_KEYS])} and {more} more"
