"""Run the stages in order: sweep → seeds → select → distill → ledger → report.

The functions take a specification and a run's folder; `quorum.api` makes both from plain
values. Options that the specification already includes are only recorded in the journal.

Every stage leaves its result in the run's folder and is skipped if the result is there, so a
killed run resumes where it stopped.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from journal.journal import read_state
from quorum import stages, student_stage, trial_stages
from quorum.options import AblationOptions, RunOptions, SearchOptions
from quorum.outcome import Outcome
from quorum.resuming import settings_of
from quorum.workspace.checks import require_same_weights
from quorum.workspace.opening import open_run
from quorum.workspace.run import Run
from search.space.spec import SweepSpec
from search.space.sweep_files import spec_of_run
from search.timetable.planner import Planner, make_plan
from trainables.data.dataset import load_dataset
from trainables.data.splits import make_splits
from trainables.records import RunFolder, read_start

if TYPE_CHECKING:
    from analysis.facts.ablation import AblationResult
    from trainables.replay import Replay
    from trainables.trainer import EpochReport


def run(
    spec: SweepSpec, folder: RunFolder | str | Path, options: SearchOptions | None = None
) -> Outcome:
    """Turn labelled images into a released student, a ledger and a report.

    The time budget is a deadline for the whole call: the plan chooses schedules and a number
    of trials that fit (search/timetable/plan.py). To resume, `spec` must be the specification
    that the run was started with; the number of trials may then be raised.

    Raises:
        QuorumError: an error that the user can fix; finished work is kept.
    """
    options = options or SearchOptions()
    with _open(spec, folder, options) as opened:
        student_stage.check_budgets(opened)
        trial_stages.sweep_and_seeds(opened, trials=options.trials, address=options.address)
        stages.select(opened)
        student_stage.distill(opened)
        return _conclude(opened, options)


def sweep(
    spec: SweepSpec, folder: RunFolder | str | Path, options: SearchOptions | None = None
) -> RunFolder:
    """Search, with the whole time budget, and nothing else. Raises as `run` does."""
    options = options or SearchOptions()
    with _open(spec, folder, options, stages=("sweep",)) as opened:
        trial_stages.sweep_and_seeds(
            opened, trials=options.trials, address=options.address, seeds=False
        )
        return opened.folder


def distill(
    folder: RunFolder | str | Path,
    options: RunOptions | None = None,
    *,
    workers: int = 1,
    selection: Path | None = None,
    budgets: Mapping[str, float] | None = None,
) -> Outcome:
    """Train another student from the run's selection, then write ledger and report again.

    `selection` is the file of another ensemble of the run's trials, which teaches this student;
    the ledger still compares it with the run's ensemble. `budgets` replace those that the run was
    started with, for this student; they are named as in the specification's `gates`. The student
    starts from a new seed. The ledger reads test once more and counts it. If an earlier call was
    killed before it wrote the ledger, this call finishes that student. Its options must then be the
    same, or none.
    """
    folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    options = options or RunOptions()
    with _open(spec_of_run(folder), folder, options, stages=("distill",), resume=True) as opened:
        stages.select(opened)
        if stages.lacks_ledger(opened):
            student_stage.require_same_options(opened, selection=selection, budgets=budgets)
        else:
            student_stage.distill(
                opened, workers=workers, again=True, selection=selection, budgets=budgets
            )
        return _conclude(opened, options, again=True)


def ablate(
    spec: SweepSpec,
    folder: RunFolder | str | Path,
    options: AblationOptions | None = None,
    *,
    of: RunFolder | None = None,
) -> "AblationResult":
    """Train a recipe without each of its factors in turn; return their effects on holdout.

    The recipe is the one that all trials of `spec` start from, or the best of the run `of`.
    Every variant is trained from the same `seeds` (5), for `epochs` (the recipe's), or fewer
    if the time budget requires it; none is stopped early. `factors` are names from
    search/ablation/factors.py. The result is also written to the run's folder, as
    ablation.json, ablation.csv and figures/ablation.png. A resumed ablation may only raise
    `seeds`.

    Raises:
        QuorumError: an error that the user can fix; finished work is kept.
    """
    from analysis.facts.ablation import ablation_event, write_ablation
    from analysis.figures.ablation import save_ablation_figure
    from search.ablation.ablation import (
        new_ablation,
        resumed_ablation,
    )
    from search.ablation.plan import ABLATION_STAGES, plan_ablation

    options = options or AblationOptions()
    folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    if options.resume and folder.sweep.exists():
        ablation = resumed_ablation(folder, of=of, seeds=options.seeds)
    else:
        ablation, spec = new_ablation(spec, of=of, **options.comparison)
    planner = partial(plan_ablation, ablation=ablation, trials=ablation.trials_left(folder))
    with _open(spec, folder, options, stages=ABLATION_STAGES, planner=planner) as opened:
        ablation.write(opened.folder)
        trial_stages.train_variants(opened, ablation, address=options.address)
        with opened.stage("report"):
            result = write_ablation(opened.folder, ablation, opened.spec.base_recipe())
            save_ablation_figure(result, opened.folder.figures / "ablation.png")
            opened.emit(ablation_event(result))
        return result


def replay(
    folder: RunFolder | str | Path,
    trial: str,
    *,
    on_report: "Callable[[EpochReport], None]" = lambda _: None,
) -> "Replay":
    """Train a trial again from its record and compare the weights; the run stays untouched.

    Raises:
        QuorumError: there is no such trial, or its data or weights are missing or changed.
    """
    from trainables.replay import replay as replay_trial

    folder = (folder if isinstance(folder, RunFolder) else RunFolder(folder)).require()
    spec = spec_of_run(folder)
    start = folder.trial(trial) / "start.json"
    if start.is_file() and read_start(start).weights is None:  # only the journal has them
        require_same_weights(folder, read_state(folder.journal), spec)
    images = load_dataset(spec.dataset)
    splits = make_splits(images, spec.splits)
    return replay_trial(folder, trial, images=images, splits=splits, on_report=on_report)


def _open(
    spec: SweepSpec,
    folder: RunFolder | str | Path,
    options: RunOptions,
    *,
    stages: Collection[str] | None = None,
    resume: bool | None = None,
    planner: Planner = make_plan,
) -> AbstractContextManager[Run]:
    return open_run(
        folder,
        spec,
        resume=options.resume if resume is None else resume,
        stages=stages,
        time_budget=options.budget_seconds,
        began=options.began,
        address=options.address,
        device=options.device,
        workers=options.workers,
        observers=options.observers,
        mirrored=options.mirror,
        settings=settings_of(options),
        planner=planner,
    )


def _conclude(run: Run, options: RunOptions, *, again: bool = False) -> Outcome:
    """Write the ledger, register the released student and typeset the report."""
    stages.ledger(run, again=again)
    if options.register:
        stages.register(run)
    if options.report:
        stages.report(run)
    return Outcome(folder=run.folder, tracking_uri=run.tracking_uri)
