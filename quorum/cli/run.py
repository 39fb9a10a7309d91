"""Turn labelled images into a small, tested classifier.

The stages are sweep → seeds → select → distill → ledger → report. With --time-budget, the
number of trials and the length of their schedules are chosen to fit.
"""

from argparse import ArgumentParser, Namespace

import quorum
from quorum.cli.arguments import add_dry_run, add_options, add_sweep, values_of
from quorum.cli.printing import print_outcome, print_plan, print_reminder
from quorum.options import SearchOptions

EXAMPLE = "quorum run digits --time-budget 10m"


def add_arguments(parser: ArgumentParser) -> None:
    """Add SWEEP and the options of a run."""
    add_sweep(parser)
    add_options(parser, SearchOptions)
    add_dry_run(parser, "check sweep and data, print the plan, and stop")


def execute(arguments: Namespace) -> int:
    """Run the sweep's whole chain and print its ledger."""
    values = values_of(arguments, SearchOptions)
    if arguments.dry_run:
        print_plan(quorum.plan(arguments.sweep, **values))
    else:
        print_outcome(quorum.run(arguments.sweep, **values))
        print_reminder(arguments.address)
    return 0
