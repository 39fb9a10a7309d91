"""Run the trials of a sweep, or trials that are fixed beforehand, durably.

Tune runs the trials; the journal says what there is to run. Every call starts Tune afresh
from the journal and loads nothing of Tune's own, so starting, going on after a kill and
adding trials are the same thing.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune

from common.failures import unwritable
from journal.journal import Journal, Observer
from journal.states import Kind
from search.samplers.fixed import Fixed
from search.samplers.optuna_sampler import OptunaSampler
from search.samplers.suggestions import FixedTrials
from search.schedulers.asha import Asha, TuneAsha
from search.space.space import Space
from search.space.spec import SweepSpec
from search.timetable.deadlines import Deadlines
from search.tune.callbacks import RETRIES, Deadline, Hooks, trial_name
from search.tune.launching import SENT_BYTES, Launcher
from search.tune.recorder import Recorder
from search.tune.session import cluster_capacity
from search.tune.storage import Storage
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics
from trainables.records import RunFolder
from trainables.trainer import TrainerFactory
from trainables.trial import QuorumTrial, default_trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOutcome:
    """How trials of one kind came to an end. Counts include earlier sessions."""

    kind: Kind
    reason: Literal["finished", "time_budget"]
    completed: int
    pruned: int
    failed: int
    unfinished: int
    """Started, and to be gone on with."""
    seconds: float
    """Wall-clock seconds of this session."""


def ignore(event: dict[str, Any]) -> None:
    """An event sink that does nothing."""


def run_sweep(
    spec: SweepSpec,
    folder: RunFolder,
    journal: Journal,
    *,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    trials: int | None = None,
    deadline: float | None = None,
    latest: float | None = None,
    on_event: Observer = ignore,
    storage: str | None = None,
    cache: Path | None = None,
    trainer: TrainerFactory = default_trainer,
) -> SweepOutcome:
    """Run the sweep inside a `ray_session`, or go on with it: the journal says which.

    `trials` (default spec.trials) counts the whole run, finished ones included. No trial
    is started that could not finish its schedule before `deadline` (unix seconds), and none
    goes on at a rung that would not reach the next one before `latest` (by default the
    deadline); what runs then is stopped and can be gone on with. `on_event` is given every
    event after it is journalled. Checkpoints go to checkpoints/ in the run's folder, or
    below `storage`, a folder or URI that all nodes of a cluster share.

    Raises:
        RunError: the run is of another split, or its folder cannot be written.
        KeyboardInterrupt: as it came, after it is journalled.
    """
    launcher = _launcher(
        Recorder(
            journal,
            folder,
            _storage(storage, folder, journal),
            kind="search",
            rungs=spec.rungs,
            asha=Asha(spec.rungs, spec.reduction_factor),
            deadlines=Deadlines(finish=deadline, stop=latest or deadline),
            observers=[on_event],
        ),
        spec,
        (images, splits),
        numerics,
        shared={"cache": _text(cache), "trainer": trainer},
    )
    base = spec.base_recipe()
    source = OptunaSampler(
        Space.from_mapping(spec.space, base=base),
        base,
        launcher.recorder.history,
        trials=trials or spec.trials,
        startup_trials=spec.startup_trials,
        seed=spec.seed,
        study=f"{folder.name}-{splits.split_id}",
        path=folder.optuna,
        launch=launcher.launch,
        late=launcher.late,
    )
    launcher.recorder.observe(source.observe)
    return _run(launcher, source)


def run_fixed(
    spec: SweepSpec,
    folder: RunFolder,
    journal: Journal,
    *,
    fixed: Fixed,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    on_event: Observer = ignore,
    storage: str | None = None,
    cache: Path | None = None,
    trainer: TrainerFactory = default_trainer,
) -> SweepOutcome:
    """Train each of `fixed` for its whole schedule; none is stopped early. Else as `run_sweep`."""
    recipe, deadline = fixed.recipe, fixed.deadline
    launcher = _launcher(
        Recorder(
            journal,
            folder,
            _storage(storage, folder, journal),
            kind=fixed.kind,
            rungs=(recipe.schedule.epochs,),
            deadlines=Deadlines(finish=deadline, stop=deadline),
            observers=[on_event],
        ),
        spec,
        (images, splits),
        numerics,
        shared={"cache": _text(cache), "trainer": trainer},
    )
    source = FixedTrials(
        fixed.suggestions(launcher.recorder.history, root=spec.seed),
        launch=launcher.launch,
        late=lambda: launcher.late(recipe),
    )
    return _run(launcher, source)


def _launcher(
    recorder: Recorder,
    spec: SweepSpec,
    data: tuple[ImageSet, Splits],
    numerics: Numerics,
    *,
    shared: dict[str, Any],
) -> Launcher:
    """Bring the run's folder in order and the data to where workers find them."""
    recorder.settle()
    recorder.tidy()
    images, splits = data
    capacity = cluster_capacity()
    trials = spec.concurrent or capacity.trials_at_a_time(numerics)
    return Launcher(
        spec=spec,
        images=images,
        splits=splits,
        numerics=numerics,
        rungs=recorder.rungs,
        recorder=recorder,
        shared={
            **shared,
            "images": ray.put(images) if images.images.nbytes <= SENT_BYTES else None,
            "splits": ray.put(splits),
            "resources": capacity.share(numerics, trials=trials).resources,
        },
    )


def _run(launcher: Launcher, source: FixedTrials) -> SweepOutcome:
    """Hand Tune the trials that are left; say how it went."""
    began = time.time()
    recorder = launcher.recorder
    try:
        if source.more and recorder.error is None:
            _tune(launcher, source)
    except KeyboardInterrupt:
        _announce(recorder, "interrupted")
        raise
    except OSError as error:
        raise unwritable(recorder.folder.root, error) from error
    if recorder.error is not None:
        raise recorder.error
    outcome = _outcome(recorder, more=source.more, seconds=time.time() - began)
    if source.launched or recorder.history.last_end.get(recorder.kind) != "finished":
        _announce(recorder, outcome.reason)
    return outcome


def _tune(launcher: Launcher, source: FixedTrials) -> None:
    recorder = launcher.recorder
    # Not through tune.Tuner, which pickles all that it is given to a file for its restore.
    tune.run(
        QuorumTrial,
        # One folder a session: a trial gone on with must not overwrite its checkpoints.
        name=f"{recorder.kind}-{len(recorder.journal.events):06d}",
        storage_path=recorder.storage.root,
        num_samples=-1,
        search_alg=source,
        scheduler=TuneAsha(recorder.decide),
        max_concurrent_trials=launcher.spec.concurrent
        or cluster_capacity().trials_at_a_time(launcher.numerics),
        reuse_actors=True,
        trial_name_creator=trial_name,
        trial_dirname_creator=trial_name,
        stop=Deadline(recorder),
        max_failures=RETRIES,
        raise_on_failed_trial=False,
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        callbacks=[Hooks(recorder)],
        verbose=0,
    )
    recorder.tidy()


def _outcome(recorder: Recorder, *, more: bool, seconds: float) -> SweepOutcome:
    count = {
        status: recorder.history.count(recorder.kind, status)
        for status in ("completed", "pruned", "failed", None)
    }
    return SweepOutcome(
        kind=recorder.kind,
        reason="time_budget" if more or count[None] else "finished",
        completed=count["completed"],
        pruned=count["pruned"],
        failed=count["failed"],
        unfinished=count[None],
        seconds=seconds,
    )


def _announce(recorder: Recorder, reason: str) -> None:
    ended = sum(trial.status is not None for trial in recorder.history.of(recorder.kind))
    recorder.emit(
        {"event": "sweep_ended", "kind": recorder.kind, "reason": reason, "trials": ended}
    )


def _storage(root: str | None, folder: RunFolder, journal: Journal) -> Storage:
    """A folder of the run's own: below a shared root, named after it and its birth."""
    born = int(journal.events[0]["time"]) if journal.events else 0
    return Storage(folder.checkpoints if root is None else f"{root}/{folder.name}-{born}")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
