"""Train, quantize and judge another student.

It replaces the run's student, which is kept in student.1, and reads test once more. With a limit on
the cost, a short sweep finds the network within that limit that learns most from the ensemble.
"""

from argparse import ArgumentParser, Namespace

import quorum
from quorum.cli.arguments import add_options, add_run
from quorum.cli.printing import print_outcome, print_reminder
from quorum.options import BudgetOptions
from search.space.sections import BUDGETS

EXAMPLE = "quorum distill demo --workers 2"


def add_arguments(parser: ArgumentParser) -> None:
    """Add RUN, --selection, --workers, the budgets, --address and --runs."""
    add_run(parser)
    teacher = "selection.json of the ensemble that teaches (default: the run's)"
    parser.add_argument("--selection", metavar="FILE", help=teacher)
    workers = "number of workers that train the student (1)"
    parser.add_argument("--workers", type=int, default=1, metavar="N", help=workers)
    add_options(parser, BudgetOptions, only=[*BUDGETS, "address", "runs"])


def execute(arguments: Namespace) -> int:
    """Distill again and print the new ledger."""
    outcome = quorum.distill(
        arguments.run,
        selection=arguments.selection,
        workers=arguments.workers,
        **{name: getattr(arguments, name) for name in (*BUDGETS, "address", "runs")},
    )
    print_outcome(outcome)
    print_reminder(arguments.address)
    return 0
