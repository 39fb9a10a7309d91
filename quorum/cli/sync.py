"""Rebuild a run's MLflow view from its journal."""

from argparse import ArgumentParser, Namespace

import quorum
from quorum.cli.arguments import add_options, add_run
from quorum.cli.printing import console

EXAMPLE = "quorum sync demo"


def add_arguments(parser: ArgumentParser) -> None:
    """Add RUN and --runs."""
    add_run(parser)
    add_options(parser, only=["runs"])


def execute(arguments: Namespace) -> int:
    """Sync and print how many MLflow runs were created or updated."""
    console().print(str(quorum.sync(arguments.run, runs=arguments.runs)))
    return 0
