"""The stages that train trials: the sweep, the seeds of its best configuration, ablations.

A stage is skipped if its result is already there, so a killed run resumes with the stage that
was interrupted. Imports are inside the functions, because only these stages need Ray.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from common.errors import RunError
from common.provenance import code_version, machine_description
from journal.emitter import Emitter
from journal.events import RunResumed, SweepEnded
from journal.journal import Journal, read_state
from quorum.workspace.run import Run
from search.space.sweep_files import spec_of_run
from trainables.device.kinds import kind_of
from trainables.records import RunFolder

if TYPE_CHECKING:
    from search.ablation.ablation import Ablation
    from search.tune.placement import Placement
    from search.tune.sweep import SweepOutcome

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
    with _placed(run, address) as placement:
        _sweep(run, trials, placement)
        if seeds and run.wants("seeds"):
            retire_unfinished(run)  # a recipe that was stopped for time may be the best
            _train_seeds(run, placement)


def retire_unfinished(run: Run) -> None:
    """End the search's unfinished trials, so that they can be selected."""
    if run.state.trials.unfinished("search"):
        from search.tune.placement import storage_of
        from search.tune.sweep import retire_unfinished as retire

        storage = storage_of(run.folder, run.state, root=run.spec.storage)
        retire(run.spec, run.folder, run.emitter, storage=storage)


def has_unfinished(folder: RunFolder) -> bool:
    """Return whether trials of the search have started but not ended: paused or interrupted."""
    return folder.journal.exists() and bool(read_state(folder.journal).trials.unfinished("search"))


def end_search(folder: RunFolder) -> None:
    """End the unfinished trials of a run that no process works on: its selection is frozen next.

    Those that have the results of the rung before the last can be members.
    """
    if not has_unfinished(folder):
        return
    from search.tune.placement import storage_of
    from search.tune.sweep import retire_unfinished as retire

    with Journal(folder.journal) as journal:
        emitter = Emitter(journal)
        emitter.emit(
            RunResumed(run=folder.name, machine=machine_description(), code_version=code_version())
        )
        spec = spec_of_run(folder)
        storage = storage_of(folder, emitter.state, root=spec.storage)
        retire(spec, folder, emitter, storage=storage)
        kinds = emitter.state.trials.cohorts["search"].ended
        emitter.emit(SweepEnded(kind="search", reason="time_budget", trials=sum(kinds.values())))


def train_variants(run: Run, ablation: "Ablation", *, address: str | None) -> None:
    """Train the variants of an ablation that have not finished yet."""
    if not ablation.trials_left(run.folder):
        run.skip("sweep")
        return
    from search.ablation.trials import AblationTrials
    from search.tune.sweep import run_fixed

    recipe, end = run.spec.base_recipe(), run.end_of("sweep")
    trials = AblationTrials(ablation=ablation, recipe=recipe, deadline=end)
    with (
        _placed(run, address) as placement,
        run.stage("sweep", trials=ablation.trials),
    ):
        outcome = run_fixed(
            run.spec,
            run.folder,
            run.emitter,
            fixed=trials,
            placement=placement,
            **_training_inputs(run),
        )
        require_success(run, outcome)


@contextmanager
def _placed(run: Run, address: str | None) -> "Iterator[Placement]":
    """Start Ray, or use the joined cluster, and prepare the storage of checkpoints."""
    from search.tune.placement import is_cluster, placed
    from search.tune.session import ray_session

    if run.site.on_cluster:
        _ = run.numerics  # measured now, so that the kind of machine is known
    with (
        ray_session(address=address, folder=run.folder.root),
        placed(
            run.folder,
            run.state,
            root=run.spec.storage,
            on_cluster=is_cluster(address),
            workers=run.workers,
            measured_on=_measured_on(run),
            images=run.site.send(run.images),
        ) as placement,
    ):
        yield placement


def _measured_on(run: Run) -> str | None:
    """Return the kind of machine that the numerics suit; a resumed run's is in its records."""
    known = run.site.measured_on
    if known != "":
        return known
    kinds = {
        kind_of(record.machine)
        for record in run.folder.records()
        if record.machine is not None and record.numerics in run.family_numerics.values()
    }
    return kinds.pop() if len(kinds) == 1 else ""


def require_success(run: Run, outcome: "SweepOutcome") -> None:
    """Refuse to continue if trials have failed and none has succeeded.

    Raises:
        RunError: the message has the reason of the last failure.
    """
    if outcome.completed or outcome.pruned or outcome.unfinished or not outcome.failed:
        return
    failed = [trial for trial in run.state.trials.of_kind(outcome.kind) if trial.end is not None]
    last = max(failed, key=lambda trial: trial.number)
    reason = "" if last.end is None else last.end.reason
    which = "the only trial" if outcome.failed == 1 else f"all {outcome.failed} trials"
    raise RunError(
        f"{which} of {run.folder.root} failed; the last error ({last.name}) is: {reason}; fix the "
        "cause and start a new run, or continue with more --trials and --resume"
    )


def _sweep(run: Run, trials: int | None, placement: "Placement") -> None:
    from search.tune.sweep import run_sweep

    most_trials = trials or (run.spec.trial_count if run.deadline is None else None)
    with run.stage("sweep", trials=most_trials):
        outcome = run_sweep(
            run.spec,
            run.folder,
            run.emitter,
            trials=most_trials or UNBOUNDED,
            deadline=run.end_of("sweep"),
            latest=run.cutoff("sweep"),
            placement=placement,
            **_training_inputs(run),
        )
        require_success(run, outcome)


def _train_seeds(run: Run, placement: "Placement") -> None:
    from quorum.seeds import plan_seeds
    from search.tune.sweep import run_fixed

    with run.stage("seeds"):
        seeds = plan_seeds(run, deadline=run.cutoff("seeds"))
        run_fixed(
            run.spec,
            run.folder,
            run.emitter,
            fixed=seeds,
            placement=placement,
            **_training_inputs(run),
        )


def _training_inputs(run: Run) -> dict[str, Any]:
    return {
        "images": run.images,
        "splits": run.splits,
        "numerics": run.numerics,
        "family_numerics": run.family_numerics,
    }
