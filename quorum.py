"""The command line. Thin: one function a command, imports inside functions for speed."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.arguments import build_parser
from trainables.privacy import report_nothing

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.console import LiveDisplay
    from pipeline import Outcome
    from search.runs import Runs
    from search.spec import SweepSpec
    from trainables.records import RunFolder

DEVICES = {"cpu": "cpu", "gpu": "cuda"}
"""What torch calls a profile's device."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 (a user's mistake) or 130 (Ctrl-C)."""
    began = time.time()
    commands = (*(demo, run, sweep, status, select, distill, report, replay, clean, sync, predict),)
    options = build_parser(commands).parse_args(arguments, argparse.Namespace(began=began))
    command: Callable[[argparse.Namespace], int] = options.command
    report_nothing()
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
        from search.reasons import users_mistake

        message = users_mistake(error)
        if message is None:
            raise
        _complain(message)
        return 2


def demo(options: argparse.Namespace) -> int:
    """Run the whole chain on bundled digits."""
    from search.spec import load_spec

    return _whole_chain(load_spec("digits"), options, default_name="demo")


def run(options: argparse.Namespace) -> int:
    """Sweep → seeds → select → distill → ledger → report."""
    if options.dry_run:
        return _preview(_spec(options), options)
    return _whole_chain(_spec(options), options, default_name=Path(options.sweep).stem)


def sweep(options: argparse.Namespace) -> int:
    """Search only."""
    import pipeline
    from search.spec import parse_duration

    spec = _spec(options)
    if options.dry_run:
        return _preview(spec, options)
    folder = _runs(options).new(
        options.name, default=Path(options.sweep).stem, resume=options.resume
    )
    with _display(spec, folder) as display:
        pipeline.sweep(
            spec,
            folder,
            resume=options.resume,
            trials=options.trials,
            time_budget=parse_duration(options.time_budget),
            began=options.began,
            address=options.address,
            observers=[display.apply],
        )
    _print_status(folder)
    _console().print(
        f"next: quorum run {options.sweep} --resume --name {folder.name}", soft_wrap=True
    )
    return 0


def status(options: argparse.Namespace) -> int:
    """Print where a run stands and what it takes on the disk, or list all runs."""
    if options.run is not None:
        _print_status(_runs(options).existing(options.run))
        return 0
    from analysis.views import runs_view

    _console().print(runs_view(_runs(options), time.time()))
    return 0


def select(options: argparse.Namespace) -> int:
    """Choose and weight an ensemble from a run or a pool of predictions."""
    import pipeline
    from analysis.tables import selection_table

    if options.pool.endswith(".npz"):
        out = Path(options.out or ".")
        selection = pipeline.select_pool(Path(options.pool), members=options.members, out=out)
        path = out / "selection.json"
    else:
        folder = _runs(options).existing(options.pool)
        target = Path(options.out) if options.out else None
        selection = pipeline.select_run(folder, members=options.members, out=target)
        path = (target or folder.root) / "selection.json"
    console = _console()
    console.print(selection_table(selection))
    console.print(f"[dim]written to[/dim] {path}", soft_wrap=True)
    return 0


def distill(options: argparse.Namespace) -> int:
    """Teach, quantize and judge one student; then read test again."""
    import pipeline
    from search.spec import spec_of_run

    folder = _runs(options).existing(options.run)
    with _display(spec_of_run(folder), folder) as display:
        outcome = pipeline.distill(folder, workers=options.workers, observers=[display.apply])
    _print_outcome(outcome)
    return 0


def report(options: argparse.Namespace) -> int:
    """Draw the figures and typeset the report."""
    import pipeline

    pictures = False if options.no_images else None
    path = pipeline.report(_runs(options).existing(options.run), pictures=pictures)
    _console().print(f"[dim]report[/dim]  {path}", soft_wrap=True)
    return 0


def replay(options: argparse.Namespace) -> int:
    """Train a trial again from its record and compare; exit code 1 if its weights differ."""
    import pipeline
    from analysis.views import replay_view

    console = _console()
    found = pipeline.replay(
        _runs(options).existing(options.run),
        options.trial,
        on_report=lambda report: console.print(
            f"[dim]epoch {report.epoch}, val NLL {report.val_nll:.4f}, {report.seconds:.1f} s[/dim]"
        ),
    )
    console.print(replay_view(found))
    return 0 if found.identical else 1


def clean(options: argparse.Namespace) -> int:
    """Free the disk of what a run no longer needs, or what can be made again.

    That is: checkpoints of trials that have ended, weights of trials that were stopped early,
    work of students that are done, temporary files, figures. Records, predictions, the
    pool's weights, selection, students, ledger, journal and sweep.yaml stay; so status,
    select, distill, report, predict, sync and --resume work as before.
    """
    from analysis.views import clean_view
    from search.housekeeping import clean as clean_run
    from search.housekeeping import removable

    folder = _runs(options).existing(options.run)
    act = removable if options.dry_run else clean_run
    things = act(folder, everything=options.all, cache=options.cache)
    _console().print(clean_view(things, dry=options.dry_run))
    return 0


def sync(options: argparse.Namespace) -> int:
    """Rebuild the MLflow view from the journal."""
    from search.tracking import sync as sync_run

    summary = sync_run(_runs(options).existing(options.run))
    _console().print(str(summary))
    return 0


def predict(options: argparse.Namespace) -> int:
    """Print class probabilities for any images."""
    import json

    from ensemble.onnx_model import classify

    for found in classify(_runs(options).model(options.model), options.images):
        ranked = sorted(
            zip(found.class_names, found.probabilities, strict=True), key=lambda pair: -pair[1]
        )
        if options.json:
            print(json.dumps({"image": str(found.image), "probabilities": dict(ranked)}))
        else:
            top = "  ".join(f"{name} {share:.3f}" for name, share in ranked[: options.top])
            print(f"{found.image}\t{top}")
    return 0


def _preview(spec: "SweepSpec", options: argparse.Namespace) -> int:
    from analysis.views import preview_view
    from search.plan import STAGES
    from search.preview import preview
    from search.spec import parse_duration

    device = DEVICES.get(getattr(options, "profile", None) or "")
    found = preview(
        spec,
        time_budget=parse_duration(options.time_budget),
        device=device,
        stages=("sweep",) if options.command is sweep else STAGES,
    )
    _console().print(preview_view(found))
    return 0


def _whole_chain(spec: "SweepSpec", options: argparse.Namespace, *, default_name: str) -> int:
    import pipeline
    from search.spec import parse_duration

    given = vars(options)
    folder = _runs(options).new(
        options.name,
        default=default_name,
        resume=given.get("resume", False),
        go_on=options.command is demo,
    )
    with _display(spec, folder) as display:
        outcome = pipeline.run(
            spec,
            folder,
            resume=folder.sweep.exists(),
            trials=given.get("trials"),
            time_budget=parse_duration(given.get("time_budget")),
            began=options.began,
            address=given.get("address"),
            device=DEVICES.get(given.get("profile") or ""),
            observers=[display.apply],
        )
    _print_outcome(outcome)
    return 0


def _spec(options: argparse.Namespace) -> "SweepSpec":
    import dataclasses

    from search.spec import load_spec, spec_of_run

    hidden = {"pictures": False} if options.no_images else {}
    if options.resume:
        name = options.name or Path(options.sweep).stem
        folder = _runs(options).new(name, default=name, resume=True)
        return spec_of_run(folder).with_values(**hidden)
    spec = load_spec(options.sweep).with_values(**hidden)
    if options.data is not None:
        dataset = dataclasses.replace(spec.dataset, path=options.data)
        spec = spec.with_values(dataset=dataset)
    if options.skip_unreadable:
        spec = spec.with_values(dataset=dataclasses.replace(spec.dataset, skip_unreadable=True))
    if options.trials is not None:
        spec = spec.with_values(trials=options.trials)
    return spec


def _runs(options: argparse.Namespace) -> "Runs":
    from search.runs import Runs

    return Runs(options.runs)


def _display(spec: "SweepSpec", folder: "RunFolder") -> "LiveDisplay":
    from analysis.console import LiveDisplay

    return LiveDisplay(sys.stderr, spec, journal=folder.journal)


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _print_status(folder: "RunFolder") -> None:
    from analysis.views import status_view

    console = _console()
    view = status_view(folder, time.time(), width=console.width, height=console.height)
    console.print(view, crop=False)


def _print_outcome(outcome: "Outcome") -> None:
    from analysis.views import outcome_view

    view = outcome_view(outcome.ledger, outcome.folder, outcome.tracking_uri)
    _console().print(view, crop=False)


def _complain(message: str) -> None:
    print(f"quorum: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
