"""Print the levels of the reference problem, each against its threshold.

The sweeps level1 to level5 train them: `quorum run level1`, and so on.
"""

import json
from argparse import ArgumentParser, Namespace

import quorum
from quorum.cli.arguments import BOOLEAN, add_options
from quorum.cli.printing import console, print_line

EXAMPLE = "quorum ladder --data photos/"


def add_arguments(parser: ArgumentParser) -> None:
    """Add --data, --json and --runs."""
    data = "count only runs that were trained on this folder"
    parser.add_argument("--data", metavar="PATH", help=data)
    parser.add_argument("--json", action=BOOLEAN, help="print one JSON object per level")
    add_options(parser, only=["runs"])


def execute(arguments: Namespace) -> int:
    """Print the ladder as a table or as JSON."""
    from analysis.terminal.ladder_table import ladder_view

    levels = quorum.ladder(data=arguments.data, runs=arguments.runs)
    if arguments.json:
        for level in levels:
            print_line(json.dumps(level.to_mapping()))
    else:
        console().print(ladder_view(levels), crop=False)
    return 0
