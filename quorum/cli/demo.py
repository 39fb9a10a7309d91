"""Run the whole chain on bundled digits, in minutes."""

from argparse import ArgumentParser, Namespace

import quorum
from quorum.cli.arguments import add_options
from quorum.cli.printing import print_outcome

EXAMPLE = "quorum demo"


def add_arguments(parser: ArgumentParser) -> None:
    """Add --name and --runs."""
    add_options(parser, only=["name", "runs"])


def execute(arguments: Namespace) -> int:
    """Run the demo and print its ledger."""
    print_outcome(quorum.demo(name=arguments.name, runs=arguments.runs))
    return 0
