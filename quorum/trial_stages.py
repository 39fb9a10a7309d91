"""The stages that train trials: the sweep, the seeds of its best configuration, ablations.

A stage is skipped if its result is already there, so a killed run resumes with the stage that
was interrupted. Imports stand inside the functions, because only these stages need Ray.
"""

from typing import TYPE_CHECKING, Any

from common.provenance import code_version, machine_description
from journal.emitter import Emitter
from journal.events import RunResumed, SweepEnded
from journal.journal import Journal, read_state
from quorum.workspace.run import Run
from search.space.spec import spec_of_run
from trainables.records import RunFolder

if TYPE_CHECKING:
    from search.ablation.ablation import Ablation

UNBOUNDED = 1_000_000
"""Number of trials that stands for "as many as the time budget allows"."""


def sweep_and_seeds(
    run: Run, *, trials: int | None, address: str | None, seeds: bool = True
) -> None:
    """Search, then train more seeds of the best configuration unless `seeds` is False.

    Both stages share one Ray session, because starting Ray takes seconds.
    """
    if run.folder.selection.exists():
        run.skip("sweep")
        run.skip("seeds")
        return
    from search.tune.session import ray_session

    with ray_session(address=address, folder=run.folder.root):
        _sweep(run, trials)
        if seeds and run.wants("seeds"):
            retire_unfinished(run)  # a recipe that was stopped for time may be the best
            _train_seeds(run)


def retire_unfinished(run: Run) -> None:
    """End the trials that had no time to go on: the search is over, and they can be selected."""
    if run.state.trials.unfinished("search"):
        from search.tune.sweep import retire_unfinished as retire

        retire(run.spec, run.folder, run.emitter)


def end_search(folder: RunFolder) -> None:
    """End the unfinished trials of a run that no process works on, whose selection is frozen."""
    if not folder.journal.exists() or not read_state(folder.journal).trials.unfinished("search"):
        return
    from search.tune.sweep import retire_unfinished as retire

    with Journal(folder.journal) as journal:
        emitter = Emitter(journal)
        emitter.emit(
            RunResumed(run=folder.name, machine=machine_description(), code_version=code_version())
        )
        retire(spec_of_run(folder), folder, emitter)
        kinds = emitter.state.trials.cohorts["search"].ended
        emitter.emit(SweepEnded(kind="search", reason="time_budget", trials=sum(kinds.values())))


def train_variants(run: Run, ablation: "Ablation", *, address: str | None) -> None:
    """Train the variants of an ablation that have not finished yet."""
    if not ablation.trials_left(run.folder):
        run.skip("sweep")
        return
    from search.ablation.trials import AblationTrials
    from search.tune.session import ray_session
    from search.tune.sweep import run_fixed

    recipe, end = run.spec.base_recipe(), run.end_of("sweep")
    trials = AblationTrials(ablation=ablation, recipe=recipe, deadline=end)
    with (
        ray_session(address=address, folder=run.folder.root),
        run.stage("sweep", trials=ablation.trials),
    ):
        run_fixed(run.spec, run.folder, run.emitter, fixed=trials, **_training_inputs(run))


def _sweep(run: Run, trials: int | None) -> None:
    from search.tune.sweep import run_sweep

    most_trials = trials or (run.spec.trials if run.deadline is None else None)
    with run.stage("sweep", trials=most_trials):
        run_sweep(
            run.spec,
            run.folder,
            run.emitter,
            trials=most_trials or UNBOUNDED,
            deadline=run.end_of("sweep"),
            latest=run.cutoff("sweep"),
            **_training_inputs(run),
        )


def _train_seeds(run: Run) -> None:
    from quorum.seeds import plan_seeds
    from search.tune.sweep import run_fixed

    with run.stage("seeds"):
        seeds = plan_seeds(run, deadline=run.cutoff("seeds"))
        run_fixed(run.spec, run.folder, run.emitter, fixed=seeds, **_training_inputs(run))


def _training_inputs(run: Run) -> dict[str, Any]:
    return {
        "images": run.images,
        "splits": run.splits,
        "numerics": run.numerics,
        "family_numerics": run.family_numerics,
    }
