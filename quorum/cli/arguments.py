"""The arguments that commands take. Imports nothing but argparse, for `quorum --help`."""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

EPILOG = """\
examples:
  quorum demo                                     see the whole chain, in minutes
  quorum run my.yaml --data photos/ --time-budget 2h
  quorum status my                                from another terminal
  quorum select pool.npz --members 5 --out picked/
  quorum predict runs/my photo.jpg
"""


Argument = tuple[str, dict[str, Any]]

SWEEP: Argument = ("sweep", {"metavar": "SWEEP", "help": "a shipped sweep's name, or a YAML file"})
ANY_SWEEP: Argument = (
    "sweep",
    {**SWEEP[1], "nargs": "?", "help": f"{SWEEP[1]['help']} (default: that of --of)"},
)
RUN: Argument = ("run", {"metavar": "RUN", "help": "a run's name, or its folder"})
ANY_RUN: Argument = ("run", {**RUN[1], "nargs": "?", "help": "a run's name, or its folder"})
TRIAL: Argument = ("trial", {"metavar": "TRIAL", "help": "a trial's name, such as t0003 or s01"})
POOL: Argument = ("pool", {"metavar": "RUN|POOL.npz", "help": "a run, or a file of predictions"})
MODEL: Argument = ("model", {"metavar": "MODEL", "help": "an .onnx file, or a run with a student"})
IMAGES: Argument = ("images", {"metavar": "IMAGE", "nargs": "+", "help": "any image file"})
NAME: Argument = ("--name", {"help": "name of the run's folder (default: the sweep's name)"})
NO_IMAGES: Argument = (
    "--no-images",
    {"action": "store_true", "help": "show no image of the data set in reports and artifacts"},
)
SET: Argument = (
    "--set",
    {
        "metavar": "KEY=VALUE",
        "action": "append",
        "default": [],
        "help": "change a value of the sweep, such as recipe.width=64; may be repeated",
    },
)
PROFILE: Argument = (
    "--profile",
    {"choices": ["cpu", "gpu"], "help": "device to train on, with the sweep's values for it"},
)
STARTING: tuple[Argument, ...] = (
    NAME,
    ("--data", {"metavar": "PATH", "help": "folder of the data set"}),
    ("--skip-unreadable", {"action": "store_true", "help": "go on without broken images"}),
    ("--resume", {"action": "store_true", "help": "go on with the run of this name"}),
    ("--trials", {"type": int, "metavar": "K", "help": "trials of the search"}),
    ("--time-budget", {"metavar": "2h", "help": "deadline of the whole command: 45s, 90m, 1h30m"}),
    ("--address", {"metavar": "auto", "help": "join a running Ray cluster"}),
    (
        "--dry-run",
        {"action": "store_true", "help": "check sweep and data, show the plan, and stop"},
    ),
    SET,
    PROFILE,
    NO_IMAGES,
)
ABLATING: tuple[Argument, ...] = (
    ("--of", {"metavar": "RUN", "help": "take the recipe of this run's best trial"}),
    ("--seeds", {"type": int, "metavar": "N", "help": "seeds of every variant (5)"}),
    ("--factors", {"metavar": "A,B,C", "help": "remove these (default: all that there are)"}),
    ("--epochs", {"type": int, "metavar": "N", "help": "of every training"}),
    *(argument for argument in STARTING if argument[0] != "--trials"),
)
DRY: Argument = ("--dry-run", {"action": "store_true", "help": "print what would go, and stop"})
ALL: Argument = ("--all", {"action": "store_true", "help": "report.pdf and optuna.journal too"})
CACHE: Argument = ("--cache", {"action": "store_true", "help": "this node's decoded images too"})
MEMBERS: Argument = ("--members", {"type": int, "metavar": "K", "help": "most members (5)"})
OUT: Argument = ("--out", {"metavar": "DIR", "help": "write selection.json here"})
WORKERS: Argument = (
    "--workers",
    {"type": int, "default": 1, "metavar": "N", "help": "train the student on N workers"},
)
TOP: Argument = (
    "--top",
    {"type": int, "default": 3, "metavar": "K", "help": "classes to print, likeliest first (3)"},
)
JSON: Argument = ("--json", {"action": "store_true", "help": "all classes, one JSON object a line"})
ONLY_DATA: Argument = (
    "--data",
    {"metavar": "PATH", "help": "count only runs that were trained on this folder"},
)
JSON_ROWS: Argument = ("--json", {"action": "store_true", "help": "one JSON object a level"})
RUNS: Argument = (
    "--runs",
    {"metavar": "DIR", "help": "folder of all runs (default: $QUORUM_RUNS, else ./runs)"},
)

COMMANDS: Mapping[str, tuple[str, tuple[Argument, ...]]] = {
    "demo": ("quorum demo", (NAME,)),
    "run": ("quorum run digits --time-budget 10m", (SWEEP, *STARTING)),
    "sweep": ("quorum sweep digits --trials 40 --name wide", (SWEEP, *STARTING)),
    "status": ("quorum status demo", (ANY_RUN,)),
    "select": ("quorum select pool.npz --members 5 --out picked/", (POOL, MEMBERS, OUT)),
    "distill": ("quorum distill demo --workers 2", (RUN, WORKERS)),
    "replay": ("quorum replay demo t0003", (RUN, TRIAL)),
    "report": ("quorum report demo", (RUN, NO_IMAGES)),
    "clean": ("quorum clean demo --dry-run", (RUN, DRY, ALL, CACHE)),
    "sync": ("quorum sync demo", (RUN,)),
    "ablate": ("quorum ablate digits --seeds 5 --time-budget 10m", (ANY_SWEEP, *ABLATING)),
    "ladder": ("quorum ladder --data photos/", (ONLY_DATA, JSON_ROWS)),
    "predict": ("quorum predict runs/demo photo.jpg", (MODEL, IMAGES, TOP, JSON)),
}
"""By command: an example, and what it takes."""


def build_parser(
    commands: Iterable[Callable[[argparse.Namespace], int]],
) -> argparse.ArgumentParser:
    """The parser of these commands; their docstrings are their help."""
    parser = argparse.ArgumentParser(
        prog="quorum",
        description="From labelled images and a budget of compute to one small classifier, "
        "with the evidence for it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for function in commands:
        example, arguments = COMMANDS[function.__name__]
        text = function.__doc__ or ""
        command = parsers.add_parser(
            function.__name__,
            help=text.splitlines()[0].rstrip("."),
            description=" ".join(text.split()).rstrip("."),
            epilog=f"example: {example}",
        )
        command.set_defaults(command=function)
        for name, settings in (*arguments, RUNS):
            command.add_argument(*name.split(), **settings)
    return parser


class _Version(argparse.Action):
    """Prints the installed distribution's version."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"quorum {version('quorum-ensembles')}\n")
        parser.exit()
