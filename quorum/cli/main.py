"""The command line. Thin: one function a command, imports inside functions for speed."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cpu_runtime import share_arena, wait_passively
from common.telemetry import report_nothing
from quorum.cli.arguments import build_parser
from quorum.cli.shared import (
    DEVICES,
    console_here,
    display_of,
    print_preview,
    runs_of,
    spec_of,
)

if TYPE_CHECKING:
    from quorum.pipeline import Outcome
    from search.space.spec import SweepSpec
    from trainables.records import RunFolder


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 (a user's mistake) or 130 (Ctrl-C)."""
    began = time.time()
    commands = (
        *(demo, run, sweep, status, select, distill, report, replay, ablate, ladder, clean),
        *(sync, predict),
    )
    options = build_parser(commands).parse_args(arguments, argparse.Namespace(began=began))
    command: Callable[[argparse.Namespace], int] = options.command
    report_nothing()
    wait_passively()
    share_arena()
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
        from common.failures import users_mistake

        message = users_mistake(error)
        if message is None:
            raise
        _complain(message)
        return 2


def demo(options: argparse.Namespace) -> int:
    """Run the whole chain on bundled digits."""
    from search.space.spec import load_spec

    return _whole_chain(load_spec("digits"), options, default_name="demo")


def run(options: argparse.Namespace) -> int:
    """Sweep → seeds → select → distill → ledger → report."""
    if options.dry_run:
        return print_preview(spec_of(options), options)
    return _whole_chain(spec_of(options), options, default_name=Path(options.sweep).stem)


def sweep(options: argparse.Namespace) -> int:
    """Search only."""
    from quorum import pipeline
    from search.space.spec import parse_duration

    spec = spec_of(options)
    if options.dry_run:
        return print_preview(spec, options)
    folder = runs_of(options).new(
        options.name, default=Path(options.sweep).stem, resume=options.resume
    )
    with display_of(spec, folder) as display:
        pipeline.sweep(
            spec,
            folder,
            resume=options.resume,
            trials=options.trials,
            time_budget=parse_duration(options.time_budget),
            began=options.began,
            address=options.address,
            device=DEVICES.get(options.profile or ""),
            observers=[display.apply],
        )
    _print_status(folder)
    console_here().print(
        f"next: quorum run {options.sweep} --resume --name {folder.name}", soft_wrap=True
    )
    return 0


def status(options: argparse.Namespace) -> int:
    """Print where a run stands and what it takes on the disk, or list all runs."""
    if options.run is not None:
        _print_status(runs_of(options).existing(options.run))
        return 0
    from analysis.terminal.views import runs_view

    console_here().print(runs_view(runs_of(options), time.time()))
    return 0


def select(options: argparse.Namespace) -> int:
    """Choose and weight an ensemble from a run or a pool of predictions."""
    from analysis.terminal.tables import selection_table
    from common.parsing import to_mapping
    from quorum import pipeline

    if options.pool.endswith(".npz"):
        out = Path(options.out or ".")
        selection = pipeline.select_pool(Path(options.pool), members=options.members, out=out)
        path = out / "selection.json"
    else:
        folder = runs_of(options).existing(options.pool)
        target = Path(options.out) if options.out else None
        selection = pipeline.select_run(folder, members=options.members, out=target)
        path = (target or folder.root) / "selection.json"
    console = console_here()
    console.print(selection_table(to_mapping(selection)))
    console.print(f"[dim]written to[/dim] {path}", soft_wrap=True)
    return 0


def distill(options: argparse.Namespace) -> int:
    """Teach, quantize and judge one student; then read test again."""
    from quorum import pipeline
    from search.space.spec import spec_of_run

    folder = runs_of(options).existing(options.run)
    with display_of(spec_of_run(folder), folder) as display:
        outcome = pipeline.distill(folder, workers=options.workers, observers=[display.apply])
    _print_outcome(outcome)
    return 0


def report(options: argparse.Namespace) -> int:
    """Draw the figures and typeset the report."""
    from quorum import pipeline

    pictures = False if options.no_images else None
    path = pipeline.report(runs_of(options).existing(options.run), pictures=pictures)
    console_here().print(f"[dim]report[/dim]  {path}", soft_wrap=True)
    return 0


def replay(options: argparse.Namespace) -> int:
    """Train a trial again from its record and compare; exit code 1 if its weights differ."""
    from analysis.terminal.views import replay_view
    from quorum import pipeline

    console = console_here()
    found = pipeline.replay(
        runs_of(options).existing(options.run),
        options.trial,
        on_report=lambda report: console.print(
            f"[dim]epoch {report.epoch}, val NLL {report.val_nll:.4f}, {report.seconds:.1f} s[/dim]"
        ),
    )
    console.print(replay_view(found))
    return 0 if found.identical else 1


def ablate(options: argparse.Namespace) -> int:
    """Train a recipe without each of its factors in turn, and say what each is worth.

    Every variant is trained from the same seeds and scored on holdout. The run's folder,
    by default SWEEP-ablation, gets ablation.json, ablation.csv and figures/ablation.png.
    """
    from analysis.terminal.ablation_views import ablation_table, ablation_view, result_lines
    from common.errors import SpecError
    from quorum import pipeline
    from search.ablation.variants import preview_variants
    from search.space.spec import parse_duration

    of = runs_of(options).existing(options.of) if options.of else None
    if of is None and options.sweep is None:
        raise SpecError("give a SWEEP, or a run with --of")
    default = f"{Path(options.sweep).stem if of is None or options.sweep else of.name}-ablation"
    options.sweep = options.sweep or str(of and of.sweep)
    options.name = options.name or (default if options.resume else None)
    wanted: dict[str, Any] = {
        "of": of,
        "factors": options.factors and options.factors.replace(" ", "").split(","),
        **{name: getattr(options, name) for name in ("seeds", "epochs")},
        "time_budget": parse_duration(options.time_budget),
        "device": DEVICES.get(options.profile or ""),
    }
    spec = spec_of(options)
    if options.dry_run:
        console_here().print(ablation_view(*preview_variants(spec, **wanted)))
        return 0
    folder = runs_of(options).new(options.name, default=default, resume=options.resume)
    with display_of(spec, folder) as display:
        result = pipeline.ablate(
            spec,
            folder,
            **wanted,
            resume=options.resume,
            began=options.began,
            address=options.address,
            observers=[display.apply],
        )
    console_here().print(ablation_table(result), *result_lines(folder), sep="\n", crop=False)
    return 0


def ladder(options: argparse.Namespace) -> int:
    """Print the levels of the reference problem, each against its threshold; trains nothing.

    The sweeps level1 to level5 train them: `quorum run level1`, and so on.
    """
    import json

    from analysis.facts.ladder import ladder as rungs_of
    from analysis.terminal.ladder_table import ladder_table

    rungs = rungs_of(runs_of(options), data=options.data)
    if options.json:
        for rung in rungs:
            print(json.dumps(rung.to_mapping()))
    else:
        console_here().print(ladder_table(rungs), crop=False)
    return 0


def clean(options: argparse.Namespace) -> int:
    """Free the disk of what a run no longer needs, or what can be made again.

    That is: checkpoints of trials that have ended, weights of trials that were stopped early,
    work of students that are done, temporary files, figures. Records, predictions, the
    pool's weights, selection, students, ledger, journal and sweep.yaml stay; so status,
    select, distill, report, predict, sync and --resume work as before.
    """
    from analysis.terminal.views import clean_view
    from quorum.workspace.cleaning import clean as clean_run
    from quorum.workspace.cleaning import removable

    folder = runs_of(options).existing(options.run)
    act = removable if options.dry_run else clean_run
    things = act(folder, everything=options.all, cache=options.cache)
    console_here().print(clean_view(things, dry=options.dry_run))
    return 0


def sync(options: argparse.Namespace) -> int:
    """Rebuild the MLflow view from the journal."""
    from search.mlflow.tracking import sync as sync_run

    summary = sync_run(runs_of(options).existing(options.run))
    console_here().print(str(summary))
    return 0


def predict(options: argparse.Namespace) -> int:
    """Print class probabilities for any images."""
    import json

    from ensemble.deployment.onnx_model import classify

    for found in classify(runs_of(options).model(options.model), options.images):
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
    from quorum import pipeline
    from search.space.spec import parse_duration

    given = vars(options)
    folder = runs_of(options).new(
        options.name,
        default=default_name,
        resume=given.get("resume", False),
        go_on=options.command is demo,
    )
    with display_of(spec, folder) as display:
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


def _print_status(folder: "RunFolder") -> None:
    from analysis.terminal.views import status_view

    console = console_here()
    view = status_view(folder, time.time(), width=console.width, height=console.height)
    console.print(view, crop=False)


def _print_outcome(outcome: "Outcome") -> None:
    from analysis.terminal.views import outcome_view

    view = outcome_view(outcome.ledger, outcome.folder, outcome.tracking_uri)
    console_here().print(view, crop=False)


def _complain(message: str) -> None:
    print(f"quorum: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
