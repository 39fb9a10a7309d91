"""Draw a run's figures and typeset its report."""

from argparse import ArgumentParser, Namespace

import quorum
from quorum.cli.arguments import add_options, add_run
from quorum.cli.printing import print_path

EXAMPLE = "quorum report demo"


def add_arguments(parser: ArgumentParser) -> None:
    """Add RUN, --no-images and --runs."""
    add_run(parser)
    add_options(parser, only=["pictures", "runs"])


def execute(arguments: Namespace) -> int:
    """Write the report and print its path."""
    path = quorum.report(arguments.run, pictures=arguments.pictures, runs=arguments.runs)
    print_path("report ", path)
    return 0
