"""Choose and weight an ensemble from a run, or from a file of predictions.

The selection of a run is written to its folder, where it is frozen, or to --out. The selection
from a file is written to --out, by default the current folder.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

import quorum
from quorum.cli.arguments import add_options
from quorum.cli.printing import console, print_path
from quorum.options import SearchOptions

REQUEST = ("members", "source", "weighting", "diversity")
EXAMPLE = "quorum select mine --source search --weighting learned --diversity 1 --out picked/"


def add_arguments(parser: ArgumentParser) -> None:
    """Add RUN|POOL.npz, --out, --runs and the options that restrict the ensemble."""
    source = "a run, or a file of predictions"
    parser.add_argument("pool", metavar="RUN|POOL.npz", help=source)
    parser.add_argument("--out", metavar="DIR", help="folder to write selection.json to")
    add_options(parser, SearchOptions, only=[*REQUEST, "runs"])


def execute(arguments: Namespace) -> int:
    """Select, print the ensemble, and say where selection.json is."""
    from analysis.terminal.ledger_tables import selection_table
    from quorum.inputs import find_run

    is_file = arguments.pool.endswith(".npz")
    out = arguments.out or ("." if is_file else None)
    selection = quorum.select(
        arguments.pool,
        out=out,
        runs=arguments.runs,
        **{name: getattr(arguments, name) for name in REQUEST},
    )
    folder = Path(out) if out else find_run(arguments.pool, arguments.runs).root
    console().print(selection_table(selection))
    print_path("written to", folder / "selection.json")
    return 0
