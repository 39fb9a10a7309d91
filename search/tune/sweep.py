"""Run the trials of a sweep, or a fixed list of trials, with Ray Tune.

Tune runs the trials; the journal says which are left. Every call starts Tune afresh from the
journal and loads no state of Tune's, so starting, resuming and adding trials are the same.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from uuid import uuid4

import ray
from ray import tune

from common.failures import unwritable
from journal.emitter import Emitter
from journal.events import EndReason, Kind, SweepEnded
from search.samplers.fixed import FixedPlan, FixedTrials
from search.samplers.optuna_sampler import OptunaSampler
from search.samplers.suggestions import Sampler
from search.schedulers.asha import Asha
from search.space.spec import SweepSpec
from search.timetable.compute import MOST_HEAD_PASSES, MOST_PASSES
from search.timetable.deadlines import Deadlines
from search.tune.adapters import (
    RETRIES,
    TuneCallback,
    TuneScheduler,
    TuneSearcher,
    TuneStopper,
    trial_name,
)
from search.tune.cluster import Recent, cluster_capacity
from search.tune.data_travel import sent_images
from search.tune.disk import DiskBudget
from search.tune.launching import Launcher
from search.tune.occupancy import Occupancy
from search.tune.packing import Packing
from search.tune.placement import Placement
from search.tune.recorder import Recorder
from search.tune.room import room_for
from search.tune.storage import Storage
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder
from trainables.trainer import TrainerFactory
from trainables.trial import QuorumTrial, default_trainer

NO_FAMILIES: Mapping[str, Numerics] = MappingProxyType({})
"""Every trial has the sweep's numerics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOutcome:
    """Counts of trials of one kind by their end, earlier sessions included."""

    kind: Kind
    reason: EndReason
    completed: int
    pruned: int
    failed: int
    unfinished: int
    """Trials that started and can be resumed."""
    seconds: float
    """Wall-clock seconds of this session."""


def run_sweep(
    spec: SweepSpec,
    folder: RunFolder,
    emitter: Emitter,
    *,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    family_numerics: Mapping[str, Numerics] = NO_FAMILIES,
    trials: int | None = None,
    deadline: float | None = None,
    latest: float | None = None,
    placement: Placement | None = None,
    cache: Path | None = None,
    trainer: TrainerFactory = default_trainer,
    clock: Callable[[], float] = time.time,
) -> SweepOutcome:
    """Start or resume the sweep inside a `ray_session`.

    `trials` (default spec.trial_count) counts the whole run, finished ones included. A trial starts
    only if it can finish its schedule before `deadline` (unix seconds), and continues at a rung
    only if it can reach the next one before `latest` (by default the deadline). Trials still
    running at `latest` are stopped, and those without time for their next rung are paused; both can
    be resumed (`retire_unfinished` ends them). Every event goes through `emitter`; `clock` gives
    unix seconds. Without a `placement`, all trials run on this machine and their checkpoints go to
    the run's folder.

    Raises:
        RunError: the run has another split, its folder cannot be written, or no node can hold a
            trial.
        KeyboardInterrupt: raised again after it is journalled.
    """
    place = placement or _here(folder)
    launcher = _launcher(
        Recorder(
            emitter,
            folder,
            place.storage,
            kind="search",
            rungs=spec.rungs,
            scheduler=Asha(spec.rungs, spec.reduction_factor),
            disk=_disk(spec, folder),
            deadlines=Deadlines(finish=deadline, stop=latest or deadline, clock=clock),
        ),
        spec,
        (images, splits),
        (numerics, family_numerics),
        place,
        cache=cache,
        trainer=trainer,
    )
    total = trials or spec.trial_count
    sampler = OptunaSampler(
        spec.search_space(),
        emitter.state,
        trials=total,
        startup_trials=spec.startup_trials,
        seed=spec.seed,
        study=f"{folder.name}-{splits.split_id}",
        path=folder.optuna,
        adjust=_equal_computation(spec, images, train=len(splits.train))
        if spec.resource == "compute"
        else _unchanged,
    )
    return _run(launcher, sampler, place)


def run_fixed(
    spec: SweepSpec,
    folder: RunFolder,
    emitter: Emitter,
    *,
    fixed: FixedPlan,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    family_numerics: Mapping[str, Numerics] = NO_FAMILIES,
    placement: Placement | None = None,
    cache: Path | None = None,
    trainer: TrainerFactory = default_trainer,
) -> SweepOutcome:
    """Train each trial of `fixed` for its whole schedule, otherwise as `run_sweep`."""
    recipe, deadline = fixed.recipe, fixed.deadline
    place = placement or _here(folder)
    launcher = _launcher(
        Recorder(
            emitter,
            folder,
            place.storage,
            kind=fixed.kind,
            rungs=(recipe.schedule.epochs,),
            disk=_disk(spec, folder),
            deadlines=Deadlines(finish=deadline, stop=deadline),
        ),
        spec,
        (images, splits),
        (numerics, family_numerics),
        place,
        cache=cache,
        trainer=trainer,
    )
    suggestions = fixed.suggestions(emitter.state, root=spec.seed)
    sampler = FixedTrials(suggestions)
    return _run(launcher, sampler, place)


def retire_unfinished(
    spec: SweepSpec, folder: RunFolder, emitter: Emitter, *, storage: Storage | None = None
) -> None:
    """End the unfinished trials of the search that have a rung's results, with those results.

    This is called once the search is over: they can then be selected, but not resumed.

    Raises:
        RunError: the run's folder cannot be written.
    """
    storage = storage or _here(folder).storage
    recorder = Recorder(emitter, folder, storage, kind="search", rungs=spec.rungs)
    recorder.retire()
    if recorder.error is not None:
        raise recorder.error


def _launcher(
    recorder: Recorder,
    spec: SweepSpec,
    data: tuple[ImageSet, Splits],
    chosen: tuple[Numerics, Mapping[str, Numerics]],
    place: Placement,
    *,
    cache: Path | None,
    trainer: TrainerFactory,
) -> Launcher:
    """Settle what an earlier process left, and put the data where workers find them."""
    recorder.settle()
    images, splits = data
    numerics, family_numerics = chosen
    capacity = Recent(cluster_capacity)
    packing = Packing(numerics, recorder.state, capacity=capacity, shared_bytes=images.nbytes)
    return Launcher(
        packing=packing,
        occupancy=Occupancy(packing, capacity, waiting_alone=lambda: recorder.waiting_alone),
        spec=spec,
        images=images,
        splits=splits,
        numerics=numerics,
        family_numerics=family_numerics,
        rungs=recorder.rungs,
        recorder=recorder,
        shared={
            "images": sent_images(images, cluster=None, cache=cache)
            if place.images is None
            else place.images,
            "splits": ray.put(splits),
            "cache": None if cache is None or place.on_cluster else str(cache),
            "features": uuid4().hex,
            "trainer": trainer,
            "measured_on": place.measured_on,
        },
    )


def _run(launcher: Launcher, sampler: Sampler, place: Placement) -> SweepOutcome:
    """Let Tune run the trials that are left; journal and return the outcome."""
    began, before = time.time(), launcher.recorder.state.count
    held = False
    recorder = launcher.recorder
    try:
        if sampler.more and recorder.error is None:
            with recorder.emitter.observed_by(sampler.observe):
                held = _tune(launcher, sampler, place)
    except KeyboardInterrupt:
        _announce(recorder, "interrupted")
        raise
    except OSError as error:
        raise unwritable(recorder.folder.root, error) from error
    if recorder.error is not None:
        raise recorder.error
    outcome = _outcome(recorder, more=sampler.more or held, seconds=time.time() - began)
    end = recorder.state.ends.get(recorder.kind)
    if recorder.state.count != before or end is None or end.reason != "finished":
        _announce(recorder, outcome.reason)
    return outcome


def _tune(launcher: Launcher, sampler: Sampler, place: Placement) -> bool:
    """Run the trials; return whether a trial was drawn but did not start."""
    recorder = launcher.recorder

    def limit(running: int) -> int:
        return recorder.safely(lambda: room.limit(running), 0)

    searcher = TuneSearcher(
        sampler,
        launch=launcher.launch,
        fits=launcher.fits,
        limit=limit,
        place=launcher.occupancy.place,
    )
    with room_for(
        launcher.packing.share_in,
        cluster_capacity,
        most=place.workers or launcher.spec.concurrent,
        trials_left=lambda: 0 if searcher.finished else sampler.left,
        further=launcher.occupancy.further,
        awaited=lambda: launcher.occupancy.waiting,
        elastic=place.on_cluster,
    ) as room:
        # Tune does not ask the searcher again once it has finished, but trials may still wait.
        stopper = TuneStopper(recorder, watch=lambda: limit(searcher.running))
        try:
            _run_tune(launcher, searcher, stopper)
        finally:
            launcher.delete_features()
    recorder.tidy()
    return searcher.holds_one


def _run_tune(launcher: Launcher, searcher: TuneSearcher, stopper: TuneStopper) -> None:
    recorder = launcher.recorder
    # tune.Tuner would pickle all that it is given to a file for its restore.
    tune.run(
        QuorumTrial,
        # One folder a session: a resumed trial must not overwrite its checkpoints.
        name=f"{recorder.kind}-{recorder.state.count:06d}",
        **recorder.storage.tune_options,
        num_samples=-1,
        search_alg=searcher,
        scheduler=TuneScheduler(recorder.decide),
        reuse_actors=True,
        trial_name_creator=trial_name,
        trial_dirname_creator=trial_name,
        stop=stopper,
        max_failures=RETRIES,
        raise_on_failed_trial=False,
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        callbacks=[TuneCallback(recorder, launcher.packing, launcher.occupancy)],
        verbose=0,
    )


def _outcome(recorder: Recorder, *, more: bool, seconds: float) -> SweepOutcome:
    state, kind = recorder.state, recorder.kind
    unfinished = len(state.trials.unfinished(kind))
    reason: EndReason = "disk" if recorder.disk_full else "time_budget"
    return SweepOutcome(
        kind=kind,
        reason=reason if more or unfinished else "finished",
        completed=state.trials.cohorts[kind].ended.get("completed", 0),
        pruned=state.trials.cohorts[kind].ended.get("pruned", 0),
        failed=state.trials.cohorts[kind].ended.get("failed", 0),
        unfinished=unfinished,
        seconds=seconds,
    )


def _announce(recorder: Recorder, reason: EndReason) -> None:
    ended = sum(recorder.state.trials.cohorts[recorder.kind].ended.values())
    recorder.emit(SweepEnded(kind=recorder.kind, reason=reason, trials=ended))


def _here(folder: RunFolder) -> Placement:
    return Placement(storage=Storage(folder.checkpoints))


def _disk(spec: SweepSpec, folder: RunFolder) -> DiskBudget:
    return DiskBudget(folder, limit=1e9 * spec.disk_gb, members=spec.most_members)


def _unchanged(recipe: Recipe) -> Recipe:
    return recipe


def _equal_computation(
    spec: SweepSpec, images: ImageSet, *, train: int
) -> Callable[[Recipe], Recipe]:
    """Return a function that gives a drawn recipe the passes that suit its network's operations.

    The limits are those between families: a cheap network gets at most MOST_PASSES passes (a head
    MOST_HEAD_PASSES), or as many as its family if that has more; an expensive one gets at least one
    batch of the `train` training images.
    """
    from trainables.nets.operations import operations_per_image  # imports torch

    count = partial(
        operations_per_image, classes=len(images.class_names), image_size=images.image_size
    )
    usual = {name: count(recipe.architecture) for name, recipe in spec.first_recipes().items()}

    def adjusted(recipe: Recipe) -> Recipe:
        schedule = recipe.schedule
        head = schedule.stages and schedule.stages[-1].train == "head"
        most = max(schedule.passes, MOST_HEAD_PASSES if head else MOST_PASSES)
        fewest = min(1.0, recipe.optimizer.batch_size / (schedule.train_share * train))
        ratio = usual[recipe.architecture.family] / count(recipe.architecture)
        return recipe.with_values(passes=min(most, max(fewest, schedule.passes * ratio)))

    return adjusted
