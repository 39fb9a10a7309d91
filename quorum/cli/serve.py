"""Serve a web page on this machine: drop a picture on it and see its class.

Programs POST an image file to /predict and get JSON. Only this machine can connect.
"""

from argparse import ArgumentParser, Namespace

import quorum
from common.errors import SpecError
from quorum.cli.arguments import add_options
from quorum.cli.printing import print_now

EXAMPLE = "quorum serve demo --port 8000"


def add_arguments(parser: ArgumentParser) -> None:
    """Add MODEL, --port, --max-mb and --runs."""
    model = "an .onnx file, or a run with a student"
    parser.add_argument("model", metavar="MODEL", help=model)
    port = "port to listen on (8000); 0 takes a free one"
    parser.add_argument("--port", type=int, default=8000, metavar="N", help=port)
    largest = "largest image file, in megabytes (20)"
    parser.add_argument("--max-mb", type=float, default=20.0, metavar="MB", help=largest)
    add_options(parser, only=["runs"])


def execute(arguments: Namespace) -> int:
    """Serve until Ctrl-C."""
    if not 0 < arguments.max_mb <= 1000:
        raise SpecError(f"--max-mb must be more than 0 and at most 1000, got {arguments.max_mb}")
    try:
        quorum.serve(
            arguments.model,
            port=arguments.port,
            max_bytes=int(arguments.max_mb * 1e6),
            runs=arguments.runs,
            on_start=lambda url: print_now(f"serving at {url}  (Ctrl-C stops)"),
        )
    except KeyboardInterrupt:
        print_now("stopped")
    return 0
