"""The stages that turn trained trials into results, one function each, in order.

select → distill (quorum/student_stage.py) → ledger → register → report. A stage leaves its result
in the run's folder and is skipped if the result is already there, so a killed run resumes with the
stage that was interrupted. Functions import what they need, because a run that only selects must
not load torch.
"""

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import RunError
from common.parsing import to_mapping
from journal.events import ModelRegistered, ResultReported, TestRead
from quorum.robustness import robustness_options
from quorum.selection import select_run
from quorum.student_stage import inputs, write_model_cards
from quorum.trial_stages import retire_unfinished
from quorum.workspace.run import Run
from search.timetable.pace import measuring_seconds
from trainables.records import RunFolder

if TYPE_CHECKING:
    from ensemble.ledger.ledger import Ledger
    from ensemble.selection.selection import Selection
    from search.mlflow.registry import Release

log = logging.getLogger(__name__)


def select(run: Run) -> None:
    """Choose the ensemble on holdout and freeze it in selection.json."""
    if run.folder.selection.exists():
        run.skip("select")
        return
    from ensemble.selection.run_pool import pool_from_run

    with run.stage("select") as progress:
        # Raises if there is nothing to select; paused trials then stay, for a resumed sweep.
        pool_from_run(run.folder)
        retire_unfinished(run)
        _measure_pool(run, progress)
        selection = select_run(run.folder)
        run.emit(
            ResultReported(
                kind="ensemble",
                params={
                    "members": ", ".join(member.name for member in selection.members),
                    "candidate": selection.candidate,
                    "weighting": selection.weighting,
                    "pooling": selection.pooling,
                    "temperature": selection.temperature,
                },
                metrics={
                    **{
                        f"holdout_{metric}": value
                        for metric, value in to_mapping(selection.metrics.holdout).items()
                    },
                    "gap_support": selection.gap_support,
                    "gap_pool": selection.gap_pool,
                    **_front_metrics(selection),
                },
            )
        )


def lacks_ledger(run: Run) -> bool:
    """Return whether the ledger lacks the latest release decision of the run's student."""
    if not (run.folder.student / "release.json").is_file():
        return False
    from ensemble.deployment.release import read_release
    from ensemble.ledger.ledger import read_ledger

    release, path = read_release(run.folder.student), run.folder.ledger / "ledger.json"
    if release is None or not path.is_file():
        return release is not None
    return read_ledger(path).decisions < release.decision.decisions


def ledger(run: Run, *, again: bool = False) -> None:
    """Read test and write the ledger: predictions, metrics, differences and gates.

    `again` reads test once more; the ledger counts its reads. Test is also read again for a student
    that a killed command trained after the ledger was written.
    """
    folder = run.folder.ledger
    written = (folder / "ledger.json").exists() and not again and not lacks_ledger(run)
    # A process killed right after writing the ledger leaves cards and results without its figures.
    if written and not run.state.stages["ledger"].open:
        run.skip("ledger")
        return
    from ensemble.evaluation.ledger_writer import link_ledger
    from ensemble.ledger.ledger import read_ledger

    with run.stage("ledger") as progress:
        ledger = read_ledger(folder / "ledger.json") if written else _write_ledger(run, progress)
        link_ledger(run.folder)
        write_model_cards(run, measured=True)
        run.emit(
            ResultReported(
                kind="ledger",
                params={"released": ledger.released, "test_reads": ledger.test_reads},
                metrics={
                    f"{row.stage}_test_{metric}": getattr(row, metric)
                    for row in ledger.rows
                    for metric in ("accuracy", "nll", "ece")
                }
                | {
                    f"{row.stage}_corrupted_{metric}": getattr(row, metric)
                    for row in (ledger.robustness.rows if ledger.robustness else ())
                    for metric in ("accuracy", "nll", "ece")
                    if row.family == "all"
                },
                folder=folder.name,
            )
        )


def _write_ledger(run: Run, progress: Callable[[float, str], None]) -> "Ledger":
    """Read test and write the ledger where the run's networks are measured."""
    from ensemble.evaluation.ledger_writer import measure_and_write_ledger

    run.emit(TestRead())
    ledger: Ledger = run.site.run_stage(
        measure_and_write_ledger,
        run.folder,
        images=run.images,
        splits=run.splits,
        numerics=run.numerics,
        reads=inputs(run.folder),
        writes=[run.folder.ledger.name],
        progress=progress,
        predict_with=dataclasses.replace(run.numerics, threads=run.cores),
        test_reads=run.state.test_reads,
        compute=_compute(run),
        robustness=robustness_options(run, "ledger"),
        seed=run.spec.seed,
    )
    return ledger


def register(run: Run) -> None:
    """Register the released file in MLflow; log a failure instead of raising it."""
    from ensemble.deployment.release import beats_champion, read_release
    from search.mlflow.registry import register_student

    release, decided = _release(run.folder), read_release(run.folder.student)
    if release is None or decided is None:
        return

    def beats(champion: Path) -> bool:
        return beats_champion(
            release.model,
            champion,
            run.images,
            run.splits,
            decisions=decided.decision.decisions,
            seed=run.spec.seed,
        )

    try:
        registration = register_student(run.folder, release, beats_champion=beats)
    except RunError as error:
        log.warning("%s", error)
        return
    run.emit(
        ModelRegistered(
            name=registration.name,
            version=registration.version,
            alias=registration.alias,
            reason=registration.reason,
        )
    )


def report(run: Run) -> None:
    """Draw the figures and typeset report.pdf."""
    from analysis.report.build import build_report

    with run.stage("report"):
        build_report(run.folder, run.images, pictures=run.spec.pictures)


def _measure_pool(run: Run, progress: Callable[[float, str], None]) -> None:
    """Measure the costs of the pool's networks for the selection, once."""
    from ensemble.evaluation.pool_costs import measure_pool_costs
    from ensemble.selection.run_pool import pool_from_run

    if run.folder.costs.exists() or run.spec.deliver == "single":
        return
    names = pool_from_run(run.folder).names
    left = None if run.deadline is None else run.deadline - time.time()
    run.site.run_stage(
        measure_pool_costs,
        run.folder,
        images=run.images,
        splits=run.splits,
        numerics=run.numerics,
        reads=[f"trials/{name}/{file}.json" for name in names for file in ("start", "record")],
        writes=[run.folder.costs.name],
        progress=progress,
        names=names,
        seconds=measuring_seconds(run.spec, left),
    )


def _front_metrics(selection: "Selection") -> dict[str, float]:
    """Return the number of networks on the Pareto front, and its ends."""
    front = [point for point in selection.front if point.efficient]
    if not front:
        return {}
    return {
        "front_points": len(front),
        "front_lowest_nll": min(point.nll for point in front),
        "front_smallest_bytes": min(point.bytes or 0 for point in front),
        "front_lowest_latency_ms": min(point.latency_ms or 0.0 for point in front),
    }


def _release(folder: RunFolder) -> "Release | None":
    """Return the released file as the registry takes it; None if nothing is released."""
    from ensemble.deployment.release import read_release
    from ensemble.deployment.released import released_model
    from ensemble.ledger.ledger import read_ledger
    from search.mlflow.registry import Release

    release = read_release(folder.student)
    if release is None or not release.file:
        return None
    model, card = released_model(folder.student)
    row = read_ledger(folder.ledger / "ledger.json").row(release.released)
    return Release(
        model=model,
        image_size=card.image_size,
        class_names=card.class_names,
        passed_gates=release.decision.passed,
        stage=release.released,
        row=to_mapping(row),
    )


def _compute(run: Run) -> dict[str, Any]:
    """Return the run's cost so far, in seconds of training and of wall-clock time."""
    seconds = {"search": 0.0, "seed": 0.0}
    for record in run.folder.records():
        seconds[record.kind] += record.seconds
    return {
        "trials": sum(1 for record in run.folder.records() if record.kind == "search"),
        "search_seconds": seconds["search"],
        "seeds_seconds": seconds["seed"],
        "wall_seconds": run.state.elapsed(time.time()),
    }
