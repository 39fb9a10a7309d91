"""Forecast a run: its data, trials, schedules and time.

Nothing is trained, except for some seconds of rehearsal that measure this machine, or a
cluster's workers.
"""

from argparse import ArgumentParser, Namespace

import quorum
from quorum.cli.arguments import add_options, add_sweep, values_of
from quorum.cli.printing import print_plan
from quorum.options import PlanOptions

EXAMPLE = "quorum plan cifar10 --time-budget 2h"


def add_arguments(parser: ArgumentParser) -> None:
    """Add SWEEP and the options that change a plan."""
    add_sweep(parser)
    add_options(parser, PlanOptions, without=["name", "resume", "storage", "pictures"])


def execute(arguments: Namespace) -> int:
    """Print the plan."""
    print_plan(quorum.plan(arguments.sweep, **values_of(arguments, PlanOptions)))
    return 0
