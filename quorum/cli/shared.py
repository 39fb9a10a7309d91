"""What the commands share: their specification, their runs, their display.

Imports stand inside the functions, so that `quorum --help` loads none of it.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.terminal.console import LiveDisplay
    from quorum.workspace.listing import Runs
    from search.space.spec import SweepSpec
    from trainables.records import RunFolder

DEVICES = {"cpu": "cpu", "gpu": "cuda"}
"""What torch calls a profile's device."""


def spec_of(options: argparse.Namespace) -> "SweepSpec":
    """The specification that a command was asked for, or that of the run it goes on with.

    Raises:
        SpecError: no such sweep, or a value in it that cannot be.
        RunError: there is no run to go on with.
    """
    from common.errors import SpecError
    from search.space.spec import load_spec, spec_of_run

    hidden = {"pictures": False} if options.no_images else {}
    if options.resume and options.set:
        raise SpecError("--set changes a new run; one that is resumed keeps its own sweep.yaml")
    if options.resume:
        name = options.name or Path(options.sweep).stem
        folder = runs_of(options).new(name, default=name, resume=True)
        return spec_of_run(folder).with_values(**hidden)
    spec = load_spec(options.sweep, profile=options.profile, settings=options.set)
    given = {"path": options.data, "skip_unreadable": options.skip_unreadable or None}
    changed = {name: value for name, value in given.items() if value is not None}
    spec = spec.with_values(dataset=dataclasses.replace(spec.dataset, **changed), **hidden)
    trials = getattr(options, "trials", None)
    return spec if trials is None else spec.with_values(trials=trials)


def runs_of(options: argparse.Namespace) -> "Runs":
    """The folder of all runs."""
    from quorum.workspace.listing import Runs

    return Runs(options.runs)


def display_of(spec: "SweepSpec", folder: "RunFolder") -> "LiveDisplay":
    """The live display of a run, on the error stream."""
    from analysis.terminal.console import LiveDisplay

    return LiveDisplay(sys.stderr, spec, journal=folder.journal)


def console_here() -> "Console":
    """Where results are printed."""
    from rich.console import Console

    return Console()


def print_preview(spec: "SweepSpec", options: argparse.Namespace) -> int:
    """Print what a run would do; returns the exit code."""
    from analysis.terminal.views import preview_view
    from search.space.spec import parse_duration
    from search.timetable.preview import preview

    found = preview(
        spec,
        time_budget=parse_duration(options.time_budget),
        device=DEVICES.get(options.profile or ""),
        stages=("sweep",) if options.command.__name__ == "sweep" else spec.stages,
    )
    console_here().print(preview_view(found))
    return 0
