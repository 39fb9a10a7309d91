"""Remove files that a run no longer needs or that can be made again.

These are checkpoints of trials that have ended, weights of trials that were stopped too early to be
members of the ensemble, working files of finished students, temporary files, and figures. Records,
predictions, the pool's weights, the selection, students, ledger, journal and sweep.yaml stay, so
status, select, distill, report, predict, sync and --resume keep working.
"""

from argparse import ArgumentParser, Namespace

import quorum
from quorum.cli.arguments import BOOLEAN, add_dry_run, add_options, add_run
from quorum.cli.printing import console

EXAMPLE = "quorum clean demo --dry-run"


def add_arguments(parser: ArgumentParser) -> None:
    """Add RUN, --dry-run, --all, --cache and --runs."""
    add_run(parser)
    add_dry_run(parser, "print what would be removed, and stop")
    parser.add_argument("--all", action=BOOLEAN, help="also remove report.pdf and optuna.journal")
    parser.add_argument("--cache", action=BOOLEAN, help="also remove this node's decoded images")
    add_options(parser, only=["runs"])


def execute(arguments: Namespace) -> int:
    """Clean and print what was removed."""
    from analysis.terminal.status import clean_view

    removed = quorum.clean(
        arguments.run,
        everything=arguments.all,
        cache=arguments.cache,
        dry_run=arguments.dry_run,
        runs=arguments.runs,
    )
    parts = [(part.description, part.bytes) for part in removed]
    console().print(clean_view(parts, dry=arguments.dry_run))
    return 0
