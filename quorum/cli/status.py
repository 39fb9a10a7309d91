"""Print a run's progress and disk usage, or list all runs."""

import time
from argparse import ArgumentParser, Namespace

import quorum
from quorum.cli.arguments import add_options, add_run
from quorum.cli.printing import console, print_status

EXAMPLE = "quorum status demo"


def add_arguments(parser: ArgumentParser) -> None:
    """Add RUN and --runs."""
    add_run(parser, nargs="?")
    add_options(parser, only=["runs"])


def execute(arguments: Namespace) -> int:
    """Print the progress of one run, or a line for each run."""
    from analysis.terminal.status import runs_view
    from quorum.workspace.cleaning import run_size
    from quorum.workspace.listing import Runs

    if arguments.run is not None:
        print_status(quorum.status(arguments.run, runs=arguments.runs))
    else:
        sizes = [(folder, run_size(folder)) for folder in Runs(arguments.runs)]
        console().print(runs_view(sizes, time.time()))
    return 0
