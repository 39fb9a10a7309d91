"""The command line: parse, run one command, turn errors into exit codes."""

import argparse
import codecs
import io
import os
import sys
import time
from collections.abc import Sequence

from common.printable import ascii_marks
from quorum.cli import (
    ablate,
    clean,
    demo,
    distill,
    export,
    ladder,
    plan,
    predict,
    replay,
    report,
    run,
    select,
    serve,
    status,
    sweep,
    sync,
)
from quorum.cli.parser import Command, build_parser
from quorum.cli.printing import complain
from quorum.process import prepare_process

COMMANDS: tuple[Command, ...] = (
    demo,
    run,
    sweep,
    plan,
    status,
    select,
    distill,
    report,
    predict,
    serve,
    export,
    replay,
    ablate,
    ladder,
    clean,
    sync,
)
"""In the order of `quorum --help`."""


def main(arguments: Sequence[str] | None = None, *, commands: Sequence[Command] = COMMANDS) -> int:
    """Run one command and return its exit code.

    0 is success, 2 a user's mistake (explained in one line), 130 Ctrl-C; `replay` returns 1 if
    the weights differ. A reader that closes the pipe, such as `head`, ends any command with 0.
    """
    began = time.time()
    _print_any_text()
    parsed = build_parser(commands).parse_args(arguments, argparse.Namespace(began=began))
    prepare_process()
    try:
        exit_code: int = parsed.command.execute(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        complain(_after_interrupt(parsed))
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from common.failures import users_mistake

        message = users_mistake(error)
        if message is None:
            raise
        complain(message)
        return 2
    return exit_code


def _print_any_text() -> None:
    """Print ASCII marks and escapes for characters that the terminal cannot encode."""
    codecs.register_error("ascii_marks", ascii_marks)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ascii_marks")


def _after_interrupt(arguments: argparse.Namespace) -> str:
    """Say how to continue, if the command can be continued."""
    if arguments.command is demo:
        return "stopped; finished work is kept, and the same command continues it"
    if hasattr(arguments, "resume"):
        return "stopped; finished work is kept, and --resume continues it"
    return "stopped"
