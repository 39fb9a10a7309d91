"""Print results on standard output."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.facts.status import RunStatus
    from quorum.outcome import Outcome
    from search.timetable.preview import Preview


def console() -> "Console":
    """Return the console of standard output.

    If a reader such as `head` closes the pipe, it raises BrokenPipeError, where rich would exit
    with 1.
    """
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PipeConsole()


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
            markup=False,
        )


def print_status(status: "RunStatus") -> None:
    """Print a run's progress and the disk space it uses."""
    from analysis.terminal.status import status_view

    screen = console()
    view = status_view(status, time.time(), width=screen.width, height=screen.height)
    screen.print(view, crop=False)


def print_plan(preview: "Preview") -> None:
    """Print the data, the splits and the forecast of a run."""
    from analysis.terminal.plan_view import plan_view

    console().print(plan_view(preview))
