"""Build the parser of the command line from its commands."""

import sys
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import NoReturn, Protocol

from common.printable import printable_line

DESCRIPTION = """\
Train one small classifier from labelled images within a compute budget, with
the evidence for it.
"""

EPILOG = """\
examples:
  quorum demo                                 see the whole chain, in minutes
  quorum run my.yaml --data photos/ --time-budget 2h
  quorum status my                            from another terminal
  quorum select pool.npz --members 5 --out picked/
  quorum predict runs/my photo.jpg
"""


class Command(Protocol):
    """A module of this folder: one command, named like its module.

    The first line of its docstring is its line in `quorum --help`; the whole docstring is the
    text of its own help page.
    """

    __name__: str
    __doc__: str | None
    EXAMPLE: str
    """One line to copy."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the command's arguments."""

    def execute(self, arguments: Namespace) -> int:
        """Run the command and return its exit code."""
        ...


def build_parser(commands: Sequence[Command]) -> ArgumentParser:
    """Return the parser of `quorum` with these commands."""
    parser = _OneLineParser(
        prog="quorum",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in commands:
        text = command.__doc__ or ""
        subparser = subparsers.add_parser(
            command.__name__.rpartition(".")[2],
            help=text.splitlines()[0].rstrip("."),
            description=" ".join(text.split()),
            epilog=f"example: {command.EXAMPLE}",
        )
        subparser.set_defaults(command=command)
        command.add_arguments(subparser)
    return parser


class _OneLineParser(ArgumentParser):
    """A parser that explains a mistake in one line instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Print the mistake and exit with 2."""
        self.exit(2, f"quorum: {printable_line(message)}; see `{self.prog} --help`\n")


class _Version(Action):
    """Print the installed distribution's version."""

    def __call__(self, parser: ArgumentParser, *_: object, **__: object) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"quorum {version('quorum-ensembles')}\n")
        parser.exit()
