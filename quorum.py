"""The command line. Thin: one function a command, imports inside functions for speed."""

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.console import LiveDisplay
    from pipeline import Outcome
    from search.spec import SweepSpec
    from trainables.records import RunFolder

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
RUN: Argument = ("run", {"metavar": "RUN", "help": "a run's name, or its folder"})
POOL: Argument = ("pool", {"metavar": "RUN|POOL.npz", "help": "a run, or a file of predictions"})
MODEL: Argument = ("model", {"metavar": "MODEL", "help": "an .onnx file, or a run with a student"})
IMAGES: Argument = ("images", {"metavar": "IMAGE", "nargs": "+", "help": "any image file"})
NAME: Argument = ("--name", {"help": "name of the run's folder (default: the sweep's name)"})
STARTING: tuple[Argument, ...] = (
    NAME,
    ("--data", {"metavar": "PATH", "help": "folder of the data set"}),
    ("--resume", {"action": "store_true", "help": "go on with the run of this name"}),
    ("--trials", {"type": int, "metavar": "K", "help": "trials of the search"}),
    ("--time-budget", {"metavar": "2h", "help": "deadline of the whole command: 45s, 90m, 1h30m"}),
    ("--address", {"metavar": "auto", "help": "join a running Ray cluster"}),
)
PROFILE: Argument = ("--profile", {"choices": ["cpu", "gpu"], "help": "train on this device"})
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
RUNS: Argument = (
    "--runs",
    {"metavar": "DIR", "help": "folder of all runs (default: $QUORUM_RUNS, else ./runs)"},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 (a user's mistake) or 130 (Ctrl-C)."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except KeyboardInterrupt:
        again = "the same command" if options.command is demo else "--resume"
        _complain(f"stopped; what was finished is kept, and {again} goes on from there")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        message = _users_mistake(error)
        if message is None:
            raise
        _complain(message)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands. Imports nothing but argparse."""
    parser = argparse.ArgumentParser(
        prog="quorum",
        description="From labelled images and a budget of compute to one small classifier, "
        "with the evidence for it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for function, example, arguments in (
        (demo, "quorum demo", (NAME,)),
        (run, "quorum run digits --time-budget 10m", (SWEEP, *STARTING, PROFILE)),
        (sweep, "quorum sweep digits --trials 40 --name wide", (SWEEP, *STARTING)),
        (status, "quorum status demo", (RUN,)),
        (select, "quorum select pool.npz --members 5 --out picked/", (POOL, MEMBERS, OUT)),
        (distill, "quorum distill demo --workers 2", (RUN, WORKERS)),
        (report, "quorum report demo", (RUN,)),
        (sync, "quorum sync demo", (RUN,)),
        (predict, "quorum predict runs/demo photo.jpg", (MODEL, IMAGES, TOP, JSON)),
    ):
        text = (function.__doc__ or "").splitlines()[0].rstrip(".")
        command = commands.add_parser(
            function.__name__, help=text, description=text, epilog=f"example: {example}"
        )
        command.set_defaults(command=function)
        for name, settings in (*arguments, RUNS):
            command.add_argument(*name.split(), **settings)
    return parser


def demo(options: argparse.Namespace) -> int:
    """Run the whole chain on bundled digits."""
    from search.spec import load_spec

    return _whole_chain(load_spec("digits"), options, default_name="demo")


def run(options: argparse.Namespace) -> int:
    """Sweep → seeds → select → distill → ledger → report."""
    return _whole_chain(_spec(options), options, default_name=Path(options.sweep).stem)


def sweep(options: argparse.Namespace) -> int:
    """Search only."""
    import pipeline
    from search.spec import parse_duration

    spec = _spec(options)
    folder = _new_folder(options, default_name=Path(options.sweep).stem)
    with _display(spec) as display:
        pipeline.sweep(
            spec,
            folder,
            resume=options.resume,
            trials=options.trials,
            time_budget=parse_duration(options.time_budget),
            address=options.address,
            observers=[display.apply],
        )
    _print_status(folder)
    _console().print(f"next: quorum run {options.sweep} --resume --name {folder.name}")
    return 0


def status(options: argparse.Namespace) -> int:
    """Print where a run stands."""
    _print_status(_run_folder(options).require())
    return 0


def select(options: argparse.Namespace) -> int:
    """Choose and weight an ensemble from a run or a pool of predictions."""
    import pipeline
    from analysis.tables import selection_table
    from trainables.records import RunFolder

    if options.pool.endswith(".npz"):
        out = Path(options.out or ".")
        selection = pipeline.select_pool(Path(options.pool), members=options.members, out=out)
        path = out / "selection.json"
    else:
        folder = RunFolder(_existing(options.pool, options)).require()
        target = Path(options.out) if options.out else None
        selection = pipeline.select_run(folder, members=options.members, out=target)
        path = (target or folder.root) / "selection.json"
    console = _console()
    console.print(selection_table(selection))
    console.print(f"[dim]written to[/dim] {path}")
    return 0


def distill(options: argparse.Namespace) -> int:
    """Teach, quantize and judge one student; then read test again."""
    import pipeline
    from search.spec import spec_of_run

    folder = _run_folder(options).require()
    with _display(spec_of_run(folder)) as display:
        outcome = pipeline.distill(folder, workers=options.workers, observers=[display.apply])
    _print_outcome(outcome)
    return 0


def report(options: argparse.Namespace) -> int:
    """Draw the figures and typeset the report."""
    import pipeline

    path = pipeline.report(_run_folder(options).require())
    _console().print(f"[dim]report[/dim]  {path}")
    return 0


def sync(options: argparse.Namespace) -> int:
    """Rebuild the MLflow view from the journal."""
    from search.tracking import sync as sync_run

    summary = sync_run(_run_folder(options).require())
    _console().print(str(summary))
    return 0


def predict(options: argparse.Namespace) -> int:
    """Print class probabilities for any images."""
    import json

    from ensemble.onnx_model import classify

    for found in classify(_model_path(options.model, options), options.images):
        ranked = sorted(
            zip(found.class_names, found.probabilities, strict=True), key=lambda pair: -pair[1]
        )
        if options.json:
            print(json.dumps({"image": str(found.image), "probabilities": dict(ranked)}))
        else:
            top = "  ".join(f"{name} {share:.3f}" for name, share in ranked[: options.top])
            print(f"{found.image}\t{top}")
    return 0


def _whole_chain(spec: "SweepSpec", options: argparse.Namespace, *, default_name: str) -> int:
    import pipeline
    from search.spec import parse_duration

    folder = _new_folder(options, default_name=default_name, go_on=options.command is demo)
    given = vars(options)
    devices = {"cpu": "cpu", "gpu": "cuda"}
    with _display(spec) as display:
        outcome = pipeline.run(
            spec,
            folder,
            resume=folder.sweep.exists(),
            trials=given.get("trials"),
            time_budget=parse_duration(given.get("time_budget")),
            address=given.get("address"),
            device=devices.get(given.get("profile") or ""),
            observers=[display.apply],
        )
    _print_outcome(outcome)
    return 0


def _new_folder(
    options: argparse.Namespace, *, default_name: str, go_on: bool = False
) -> "RunFolder":
    """The folder of a run to start, or with --resume (or `go_on`) of one to go on with."""
    import re

    from trainables.errors import RunError
    from trainables.records import RunFolder

    if options.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", options.name):
        raise RunError(f"--name {options.name!r}: use letters, digits, '.', '_' and '-' only")
    root = _runs(options)
    folder = RunFolder(root / (options.name or default_name))
    if getattr(options, "resume", False):
        return folder.require()
    if not folder.root.exists() or (go_on and not folder.report.exists()):
        return folder
    if options.name is not None:
        raise RunError(f"{folder.root} exists; go on with it by --resume, or choose another --name")
    number = 2
    while (root / f"{default_name}-{number}").exists():
        number += 1
    return RunFolder(root / f"{default_name}-{number}")


def _spec(options: argparse.Namespace) -> "SweepSpec":
    import dataclasses

    from search.spec import load_spec, spec_of_run
    from trainables.records import RunFolder

    if options.resume:
        name = options.name or Path(options.sweep).stem
        return spec_of_run(RunFolder(_runs(options) / name).require())
    spec = load_spec(options.sweep)
    if options.data is not None:
        dataset = dataclasses.replace(spec.dataset, path=options.data)
        spec = spec.with_values(dataset=dataset)
    if options.trials is not None:
        spec = spec.with_values(trials=options.trials)
    return spec


def _runs(options: argparse.Namespace) -> Path:
    """The folder of all runs."""
    return Path(options.runs or os.environ.get("QUORUM_RUNS") or "runs")


def _run_folder(options: argparse.Namespace) -> "RunFolder":
    from trainables.records import RunFolder

    return RunFolder(_existing(options.run, options))


def _existing(run: str, options: argparse.Namespace) -> Path:
    """A run given by path or by its name under --runs."""
    path = Path(run)
    return path if (path / "sweep.yaml").exists() else _runs(options) / run


def _model_path(model: str, options: argparse.Namespace) -> Path:
    """A model given as a file, a student's folder, or a run's folder or name."""
    from trainables.errors import RunError

    path = Path(model)
    if path.is_file():
        return path
    for folder in (path, path / "student", _runs(options) / model / "student"):
        if (folder / "card.json").is_file():
            return folder
    raise RunError(f"no model at {model!r}: give an .onnx file, or a run that was distilled")


def _display(spec: "SweepSpec") -> "LiveDisplay":
    from analysis.console import LiveDisplay

    return LiveDisplay(sys.stderr, spec)


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _print_status(folder: "RunFolder") -> None:
    import time

    from analysis.console import render
    from search.journal import read_events
    from search.progress import RunState

    state = RunState.from_events(read_events(folder.journal))
    console = _console()
    console.print(render(state, time.time(), console.width, height=console.height))


def _print_outcome(outcome: "Outcome") -> None:
    from analysis.tables import differences_table, gates_table, ledger_table

    console = _console()
    ledger = outcome.ledger
    for table in (ledger_table(ledger), differences_table(ledger), gates_table(ledger)):
        console.print(table)
    folder = outcome.folder
    programs = Path(sys.executable).parent
    store = f"--backend-store-uri {outcome.tracking_uri}"
    say = functools.partial(console.print, soft_wrap=True, highlight=False)
    say(f"[bold]report[/]   {_near(folder.report)}")
    say(f"[bold]student[/]  {_near(folder.student)}")
    say(f"         {_near(programs / 'quorum')} predict {_near(folder.root)} IMAGE")
    say("[bold]trials[/]   in the MLflow UI, view “Trials, best first”:")
    say(f"         {_near(programs / 'mlflow')} ui --host 127.0.0.1 {store}")


def _near(path: Path) -> str:
    """A path as one would type it from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _users_mistake(error: BaseException) -> str | None:
    """One line for an error that the user can mend; None for a defect of ours."""
    import errno

    from trainables.errors import QuorumError

    if isinstance(error, QuorumError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk of {error.filename or 'the run'}; free some and --resume"
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}"
    return None


def _complain(message: str) -> None:
    print(f"quorum: {message}", file=sys.stderr)


class _Version(argparse.Action):
    """Prints the installed distribution's version."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from importlib.metadata import version

        print(f"quorum {version('quorum-ensembles')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
