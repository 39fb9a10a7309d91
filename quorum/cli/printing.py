"""Print results on standard output and errors on standard error: every command prints here."""

import sys
import time
from typing import TYPE_CHECKING

from common.printable import printable, printable_line

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from analysis.facts.status import RunStatus
    from quorum.outcome import Outcome
    from search.timetable.preview import Preview


def console() -> "Console":
    """Return the console of standard output."""
    from analysis.terminal.console import PlainConsole

    return PlainConsole()


def print_line(text: str) -> None:
    """Print one line of results; control characters but tabs become escapes."""
    print(printable(text, keep="\t"))


def print_now(text: str) -> None:
    """Print one line at once, even into a pipe."""
    print(printable(text), flush=True)


def complain(message: str) -> None:
    """Print one line on standard error."""
    print(f"quorum: {printable_line(message)}", file=sys.stderr)


def print_path(label: str, path: "Path") -> None:
    """Print the path of a result on one line that can be copied whole."""
    from rich.text import Text

    console().print(Text.assemble((label, "dim"), f" {printable(str(path))}"), soft_wrap=True)


def print_outcome(outcome: "Outcome") -> None:
    """Print the ledger, and the places of the report, the student and the MLflow view."""
    from analysis.terminal.outcome_view import outcome_view

    view = outcome_view(outcome.ledger, outcome.folder, outcome.tracking_uri)
    console().print(view, crop=False)


def print_reminder(address: str | None) -> None:
    """Say that the cluster that a command has used still runs."""
    if address is not None:
        console().print(
            "cluster  still running; if you are done with it: ray down cluster.yaml",
            soft_wrap=True,
        )


def print_status(status: "RunStatus", *, next_step: bool = True) -> None:
    """Print a run's progress, the disk space it uses and, with `next_step`, how to go on."""
    from analysis.terminal.status import status_view

    screen = console()
    size = {"width": screen.width, "height": screen.height}
    view = status_view(status, time.time(), **size, next_step=next_step)
    screen.print(view, crop=False)


def print_plan(preview: "Preview") -> None:
    """Print the data, the splits and the forecast of a run."""
    from analysis.terminal.plan_view import plan_view

    console().print(plan_view(preview))
