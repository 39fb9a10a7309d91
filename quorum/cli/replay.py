"""Train a trial again from its record and compare the weights.

The exit code is 1 if the weights differ.
"""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

import quorum
from quorum.cli.arguments import add_options, add_run
from quorum.cli.printing import console

if TYPE_CHECKING:
    from trainables.trainer import EpochReport

EXAMPLE = "quorum replay demo t0003"


def add_arguments(parser: ArgumentParser) -> None:
    """Add RUN, TRIAL and --runs."""
    add_run(parser)
    trial = "a trial's name, such as t0003 or s01"
    parser.add_argument("trial", metavar="TRIAL", help=trial)
    add_options(parser, only=["runs"])


def execute(arguments: Namespace) -> int:
    """Replay the trial, print every epoch and the comparison."""
    from analysis.terminal.outcome_view import replay_view

    screen = console()

    def print_epoch(report: "EpochReport") -> None:
        line = f"epoch {report.epoch}, val NLL {report.val_nll:.4f}, {report.seconds:.1f} s"
        screen.print(line, style="dim")

    result = quorum.replay(
        arguments.run, arguments.trial, runs=arguments.runs, on_report=print_epoch
    )
    screen.print(replay_view(result))
    return 0 if result.identical else 1
