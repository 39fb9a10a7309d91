"""The stage that trains the student and decides which file ships.

Functions import what they need, because a run that only selects must not load torch.
"""

import dataclasses
import functools
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import MissingWeightsError, RunError, SpecError
from common.parsing import from_mapping
from common.seeds import derive_seed
from journal.events import ResultReported
from quorum.robustness import corrupted_holdout
from quorum.workspace.run import Run
from search.space.sections import GateSpec
from trainables.records import RunFolder

if TYPE_CHECKING:
    from ensemble.deployment.gates import GateMargins
    from ensemble.student.design import Candidate

log = logging.getLogger(__name__)


def check_budgets(run: Run) -> None:
    """Refuse limits on the released file's cost that no network of the run meets, before a sweep.

    On a cluster, latency is not checked, because another kind of machine may train the student.
    Once trials have started, nothing is checked.

    Raises:
        SpecError: names the smallest network and its cost.
    """
    if "distill" not in run.spec.stages or next(run.folder.starts(), None) is not None:
        return
    from quorum.student_request import Request

    margins = _margins(run, {})
    if run.site.on_cluster:
        margins = dataclasses.replace(margins, max_latency_ms=None)
    if Request.of(margins) == Request():
        return
    from quorum.candidates import require_affordable

    require_affordable(run.spec, margins, run.images, run.splits)


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
    specification's gates. An unfinished student of a killed command keeps the budgets that it was
    started with.

    Raises:
        RunError: `selection` was not made from this run's trials as they are now, or an unfinished
            student was asked for with other options.
        SpecError: no network is within the budgets, or a budget is impossible.
    """
    from ensemble.deployment.release import read_release
    from ensemble.selection.selection import read_selection
    from ensemble.selection.teacher_file import (
        read_selection_for,
        require_weights,
        set_teacher,
        teacher_of,
    )

    if selection is not None:
        read_selection_for(run.folder, selection)
    from quorum.student_request import Request, read_request, require_same_request, write_request

    margins = _margins(run, budgets or {})
    folder, stage = run.folder.student, run.state.stages["distill"]
    exported = (folder / "card.json").exists()
    # A process killed before the release decision leaves card.json but no release.json.
    undecided = exported and stage.open and read_release(folder) is None
    if exported and not undecided and not again:
        run.skip("distill")
        return
    if not again and not undecided and not run.wants("distill"):
        return
    from ensemble.deployment.card import read_card
    from ensemble.deployment.export import NoOnnxFormError
    from ensemble.deployment.release import decide_release
    from ensemble.evaluation.stages import holdout_predictions

    request = read_request(folder) if undecided or not exported else None
    if request is not None:
        require_same_request(run.folder, margins, limits=budgets, selection=selection)
        margins = request.margins(margins)
    if not exported or not undecided:
        chosen = selection or run.folder.selection
        require_weights(run.folder, teacher_of(run.folder) if request else read_selection(chosen))
    decided_before = decisions_before(run)
    with run.stage("distill") as progress, _student_trainer(run, workers) as train:
        kept = folder.with_name(f"student.{decided_before}")
        # A killed command may already have moved the old student, or left an unfinished one.
        if again and exported and not undecided and not kept.exists():
            folder.rename(kept)
        if not undecided:
            if request is None:
                write_request(folder, Request.of(margins))
            if selection is not None:
                set_teacher(run.folder, selection)
            try:
                _train_students(
                    run,
                    margins=margins,
                    seed=derive_seed(run.spec.seed, "student", decided_before),
                    workers=workers,
                    progress=progress,
                    train=train,
                )
            except (SpecError, NoOnnxFormError) as error:
                again_later = isinstance(error, MissingWeightsError)
                if not again_later and not (folder / "card.json").exists():
                    # A retry would fail, too, so the run keeps its previous student.
                    shutil.rmtree(folder, ignore_errors=True)
                    if kept.exists():  # moved by this process, or by one that was killed
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
            decisions=decided_before + 1,
            seed=run.spec.seed,
        )
        shipped = None if not release.file else read_card((folder / release.file).parent).shipped
        write_model_cards(run, measured=False)
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


def require_same_options(
    run: Run, *, selection: Path | None, budgets: Mapping[str, float] | None
) -> None:
    """Refuse options for another student than the one that still lacks its ledger.

    Raises:
        RunError: they differ from those of this student.
    """
    from quorum.student_request import require_same_request

    margins = _margins(run, budgets or {})
    require_same_request(run.folder, margins, limits=budgets, selection=selection)


def decisions_before(run: Run) -> int:
    """Return how many releases the run has decided.

    A process that was killed right after a decision has not journaled it; the students have it.
    """
    from ensemble.deployment.release import read_release

    found = [run.state.stages["distill"].times_finished]
    student = run.folder.student
    for folder in (student, *student.parent.glob(f"{student.name}.[0-9]*")):
        try:
            release = read_release(folder)
        except RunError as error:
            log.warning("%s", error)
            continue
        if release is not None:
            found.append(release.decision.decisions)
    return max(found)


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


def write_model_cards(run: Run, *, measured: bool) -> None:
    """Write card.md of every network, with figures if the ledger has `measured` its files."""
    from ensemble.deployment.card import read_card
    from ensemble.deployment.model_card import read_test_figures, write_model_card
    from ensemble.deployment.student_folder import network_folders

    for network, folder in network_folders(run.folder.student).items():
        card = read_card(folder)
        test = read_test_figures(run.folder.ledger, card, network) if measured else None
        write_model_card(folder, card, test)


def _plan_for_teacher(run: Run) -> None:
    """Give the students the time planned for members that the ensemble does not have after all."""
    from ensemble.selection.teacher_file import teacher_of

    members = len(teacher_of(run.folder).members)
    if run.plan is not None and run.plan.deadline is not None and members != run.plan.members:
        run.revise(run.plan.with_members(members), at="distill")


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

    _plan_for_teacher(run)
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


def _margins(run: Run, budgets: Mapping[str, float | None]) -> "GateMargins":
    """Return the specification's margins with other budgets.

    Raises:
        SpecError: a budget is impossible.
    """
    from ensemble.deployment.gates import GateMargins

    values = {**dataclasses.asdict(run.spec.gates), **budgets}
    return GateMargins(**dataclasses.asdict(from_mapping(GateSpec, values, where="gates")))
