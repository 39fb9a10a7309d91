"""Train the trials of a sweep, and nothing else."""

from argparse import ArgumentParser, Namespace

import quorum
from quorum.cli.arguments import add_dry_run, add_options, add_sweep, values_of
from quorum.cli.printing import console, print_plan, print_reminder, print_status
from quorum.options import SearchOptions

EXAMPLE = "quorum sweep digits --trials 40 --name wide"


def add_arguments(parser: ArgumentParser) -> None:
    """Add SWEEP and the options of a run."""
    add_sweep(parser)
    add_options(parser, SearchOptions)
    add_dry_run(parser, "check sweep and data, print the plan, and stop")


def execute(arguments: Namespace) -> int:
    """Search and print the run's progress."""
    from analysis.terminal.status import resume_command

    values = values_of(arguments, SearchOptions)
    if arguments.dry_run:
        print_plan(quorum.plan(arguments.sweep, search_only=True, **values))
        return 0
    folder = quorum.sweep(arguments.sweep, **values)
    print_status(quorum.status(folder), next_step=False)
    command = resume_command(
        folder,
        sweep=arguments.sweep,
        data=arguments.data,
        profile=arguments.profile,
        address=arguments.address,
        program="quorum",  # scripts read this line
    )
    console().print(f"next: {command}", soft_wrap=True)
    print_reminder(arguments.address)
    return 0
