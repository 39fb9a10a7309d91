"""The stages that turn trained trials into results, one function each, in order.

select → distill → ledger → register → report. A stage leaves its result in the run's folder
and is skipped if the result is already there, so a killed run resumes with the stage that was
interrupted. Functions import what they need, because a run that only selects must not load torch.
"""

import dataclasses
import functools
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import RunError, SpecError
from common.parsing import to_mapping
from common.seeds import derive_seed
from journal.events import ModelRegistered, ResultReported, TestRead
from quorum.robustness import corrupted_holdout, robustness_options
from quorum.selection import select_run
from quorum.trial_stages import retire_unfinished
from quorum.workspace.run import Run
from search.timetable.pace import measuring_seconds
from trainables.records import RunFolder

if TYPE_CHECKING:
    from ensemble.deployment.gates import GateMargins
    from ensemble.ledger.ledger import Ledger
    from ensemble.selection.selection import Selection
    from ensemble.student.design import Candidate
    from search.mlflow.registry import Release

log = logging.getLogger(__name__)


def select(run: Run) -> None:
    """Choose the ensemble on holdout and freeze it in selection.json."""
    if run.folder.selection.exists():
        run.skip("select")
        return
    from ensemble.selection.run_pool import pool_from_run

    with run.stage("select") as progress:
        # Without a pool nothing is frozen, and a resumed sweep may go on with its paused trials.
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


def check_budgets(run: Run) -> None:
    """Refuse limits on parameters or arithmetic that no network of the run meets, before a sweep.

    Raises:
        SpecError: names the smallest network and its cost.
    """
    if run.folder.selection.exists() or "distill" not in run.spec.stages:
        return
    if run.spec.gates.max_params is None and run.spec.gates.max_gflops is None:
        return
    from quorum.candidates import require_affordable

    require_affordable(run.spec, _margins(run, {}), run.images, run.splits)


def distill(
    run: Run,
    *,
    workers: int = 1,
    again: bool = False,
    selection: Path | None = None,
    budgets: Mapping[str, float] | None = None,
) -> None:
    """Train the student, and a twin without a teacher; decide on holdout which file ships.

    `again` trains a new student from a new seed and keeps the old one in student.1, student.2 …
    Repeated after a kill, it resumes the training of that student. `selection` names another
    ensemble as its teacher; a copy stays in the student's folder. `budgets` replace those of the
    specification's gates.

    Raises:
        RunError: `selection` was not made from this run's trials as they are now.
    """
    from ensemble.deployment.release import read_release
    from ensemble.selection.teacher_file import read_selection_for, set_teacher, teacher_of

    if selection is not None:
        read_selection_for(run.folder, selection)
    folder, stage = run.folder.student, run.state.stages["distill"]
    exported = (folder / "card.json").exists()
    # A process that was killed before the decision leaves a card without it.
    undecided = exported and stage.open and read_release(folder) is None
    if exported and not undecided and not again:
        run.skip("distill")
        return
    if not again and not undecided and not run.wants("distill"):
        return
    from ensemble.deployment.card import read_card
    from ensemble.deployment.release import decide_release
    from ensemble.evaluation.stages import holdout_predictions

    margins = _margins(run, budgets or {})
    with run.stage("distill") as progress, _student_trainer(run, workers) as train:
        finished_before = stage.times_finished
        kept = folder.with_name(f"student.{finished_before}")
        # A command that was killed has moved the old student already, or left an unfinished one.
        if again and exported and not undecided and not kept.exists():
            folder.rename(kept)
        if not undecided:
            if selection is not None:
                set_teacher(run.folder, selection)
            try:
                _train_students(
                    run,
                    margins=margins,
                    seed=derive_seed(run.spec.seed, "student", finished_before),
                    workers=workers,
                    progress=progress,
                    train=train,
                )
            except SpecError:  # no network is within the budgets: the run keeps its student
                # Moved by this process, or by one that was killed.
                if kept.exists() and not (folder / "card.json").exists():
                    shutil.rmtree(folder, ignore_errors=True)
                    kept.rename(folder)
                raise
        corrupted = corrupted_holdout(
            run,
            reads=inputs(run.folder),
            progress=lambda done, detail: progress(0.95 + 0.05 * done, detail),
        )
        release = decide_release(
            folder,
            holdout_predictions(run.folder, run.images, run.splits),
            margins,
            corrupted=corrupted,
            coverage=run.spec.robustness.coverage,
            decisions=finished_before + 1,
            seed=run.spec.seed,
        )
        shipped = None if not release.file else read_card((folder / release.file).parent).shipped
        _write_model_cards(run, measured=False)
        run.emit(
            ResultReported(
                kind=release.released if shipped else "student",
                params={
                    "released": release.released,
                    "because": release.decision.because,
                    "teacher": ", ".join(member.name for member in teacher_of(run.folder).members),
                },
                metrics={}
                if shipped is None
                else {"bytes": shipped.bytes, "temperature": shipped.temperature},
                folder=str(folder.relative_to(run.folder.root)),
            )
        )


def lacks_ledger(run: Run) -> bool:
    """Return whether the run has a ledger, and a student that was finished after it."""
    distilled, written = (run.state.stages[name].finished_at for name in ("distill", "ledger"))
    return distilled is not None and written is not None and distilled > written


def ledger(run: Run, *, again: bool = False) -> None:
    """Read test and write the ledger: predictions, metrics, differences and gates.

    `again` reads test once more; the ledger counts its reads. Test is also read again for a student
    that a killed command trained after the ledger was written.
    """
    folder = run.folder.ledger
    written = (folder / "ledger.json").exists() and not again and not lacks_ledger(run)
    # A process that was killed after it wrote the ledger leaves cards and results without it.
    if written and not run.state.stages["ledger"].open:
        run.skip("ledger")
        return
    from ensemble.evaluation.ledger_writer import link_ledger
    from ensemble.ledger.ledger import read_ledger

    with run.stage("ledger") as progress:
        ledger = read_ledger(folder / "ledger.json") if written else _write_ledger(run, progress)
        link_ledger(run.folder)
        _write_model_cards(run, measured=True)
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


def _write_model_cards(run: Run, *, measured: bool) -> None:
    """Write card.md of every network, with figures if the ledger has `measured` its files."""
    from ensemble.deployment.card import read_card
    from ensemble.deployment.model_card import read_test_figures, write_model_card
    from ensemble.deployment.student_folder import network_folders

    for network, folder in network_folders(run.folder.student).items():
        card = read_card(folder)
        test = read_test_figures(run.folder.ledger, card, network) if measured else None
        write_model_card(folder, card, test)


def register(run: Run) -> None:
    """Register the released file in MLflow; log a failure instead of raising it."""
    from ensemble.deployment.release import beats_champion
    from search.mlflow.registry import register_student

    release = _release(run.folder)
    if release is None:
        return

    def beats(champion: Path) -> bool:
        return beats_champion(release.model, champion, run.images, run.splits, seed=run.spec.seed)

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


def _train_students(
    run: Run,
    *,
    margins: "GateMargins",
    seed: int,
    workers: int,
    progress: Callable[[float, str], None],
    train: Callable[..., Any],
) -> None:
    from ensemble.student.students import train_students
    from quorum.candidates import most_candidates, student_candidates
    from trainables.training.losses import Distillation

    end = run.end_of("distill")
    candidates = student_candidates(run.spec, run.folder)
    numerics = run.probe(candidates[0].recipe, threads=max(1, run.cores // workers))
    run.site.run_stage(
        train_students,
        run.folder,
        images=run.images,
        splits=run.splits,
        numerics=numerics,
        reads=inputs(run.folder, candidates),
        writes=[run.folder.student.name],
        progress=progress,
        leads=workers > 1,
        candidates=candidates,
        margins=margins,
        # A training that Ray Train leads cannot be paused.
        most=1 if workers > 1 else most_candidates(run.spec, margins),
        distillation=Distillation(alpha=run.spec.student.alpha, tau=run.spec.student.tau),
        seed=seed,
        license=run.spec.student.license,
        train_with=numerics,
        deadline=None if end is None or run.plan is None else end - run.plan.export_seconds,
        train=train,
    )


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


def inputs(folder: RunFolder, candidates: "Sequence[Candidate]" = ()) -> list[str]:
    """Return the files and folders that the student and the ledger are made from.

    Another machine gets these and no others: `candidates` may start from any trial of the pool.
    """
    from ensemble.evaluation.stages import pooled_trials
    from ensemble.selection.teacher_file import teacher_of

    names = {*pooled_trials(folder), *(member.name for member in teacher_of(folder).members)}
    names |= {candidate.start for candidate in candidates if candidate.start is not None}
    trials = [folder.trial(name) for name in sorted(names)]
    paths = [folder.selection, folder.sweep, folder.student, *trials]
    return [path.relative_to(folder.root).as_posix() for path in paths]


@contextmanager
def _student_trainer(run: Run, workers: int) -> Iterator[Callable[..., Any]]:
    """Yield the function that trains a student: in its process, or on `workers` Ray workers."""
    from ensemble.student.distillation import distill

    if workers <= 1:
        yield distill
        return
    from ensemble.student.distributed import GroupTrainer, distill_distributed
    from search.tune.served_folder import served
    from search.tune.session import ray_session

    if run.site.on_cluster:
        shared = run.folder.checkpoints / "student"
        with served(run.folder.root) as filesystem:
            path = f"/{shared.relative_to(run.folder.root).as_posix()}"
            yield GroupTrainer(workers=workers, filesystem=filesystem, path=path)
        shutil.rmtree(shared, ignore_errors=True)
        return
    store = max(100_000_000, 2 * run.images.nbytes)
    with ray_session(folder=run.folder.root, object_store_bytes=store):
        yield functools.partial(distill_distributed, workers=workers)


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


def _margins(run: Run, budgets: Mapping[str, float]) -> "GateMargins":
    from ensemble.deployment.gates import GateMargins

    return GateMargins(**{**dataclasses.asdict(run.spec.gates), **budgets})


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
