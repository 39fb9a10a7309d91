"""Run the trials of a sweep, or the seeds of the best, durably.

Tune runs the trials; the journal says what there is to run. Every call starts Tune afresh
from the journal and loads nothing of Tune's own, so starting, going on after a kill and
adding trials are the same thing.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune

from search.handover import Storage
from search.history import Kind
from search.hooks import RETRIES, Deadline, Hooks, trial_name
from search.journal import Journal
from search.recorder import Recorder, unwritable
from search.sampler import FixedTrials, OptunaSampler, Suggestion
from search.scheduler import Asha, TuneAsha
from search.session import trial_shares
from search.space import Space
from search.spec import SweepSpec
from trainables.datasets import ImageSet
from trainables.parsing import to_mapping
from trainables.recipe import Numerics, Recipe
from trainables.records import RunFolder, TrialStart, code_version, machine_description
from trainables.seeds import derive_seed
from trainables.splits import Splits
from trainables.trial import TRAINER, QuorumTrial

log = logging.getLogger(__name__)

EventSink = Callable[[dict[str, Any]], None]

SENT_BYTES = 32_000_000
"""Images up to this size are put into Ray's object store, of 80 MB or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOutcome:
    """How a sweep, or the seeds, came to an end. Counts include earlier sessions."""

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
    on_event: EventSink = ignore,
    storage: str | None = None,
    cache: Path | None = None,
    trainer: str = TRAINER,
) -> SweepOutcome:
    """Run the sweep inside a `ray_session`, or go on with it: the journal says which.

    `trials` (default spec.trials) counts the whole run, finished ones included. No trial
    is started that could not reach the first rung before `deadline` (unix seconds); those
    that run then are stopped and can be gone on with. `on_event` is given every event
    after it is journalled. Checkpoints go to checkpoints/ in the run's folder, or below
    `storage`, a folder or URI that all nodes of a cluster share.

    Raises:
        RunError: the run is of another split, or its journal cannot be written.
        KeyboardInterrupt: as it came, after it is journalled.
    """
    work = _Work(
        spec=spec,
        folder=folder,
        images=images,
        splits=splits,
        numerics=numerics,
        rungs=spec.rungs,
        deadline=deadline,
        storage=_storage(storage, folder, journal),
        cache=cache,
        trainer=trainer,
    )
    asha = Asha(spec.rungs, spec.reduction_factor)
    recorder = work.recorder(journal, "search", asha, on_event)
    recorder.settle()
    base = spec.base_recipe()
    source = OptunaSampler(
        Space.from_mapping(spec.space, base=base),
        base,
        recorder.history,
        trials=trials or spec.trials,
        startup_trials=spec.startup_trials,
        seed=spec.seed,
        study=f"{folder.name}-{splits.split_id}",
        path=folder.optuna,
        launch=work.launcher(recorder),
        late=lambda: work.late(recorder, None),
    )
    recorder.observe(source.observe)
    return _run(work, recorder, source)


def run_seeds(
    spec: SweepSpec,
    folder: RunFolder,
    journal: Journal,
    *,
    recipe: Recipe,
    count: int,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    deadline: float | None = None,
    on_event: EventSink = ignore,
    storage: str | None = None,
    cache: Path | None = None,
    trainer: str = TRAINER,
) -> SweepOutcome:
    """Train `recipe` from `count` seeds (s00, s01 …), each for the top rung's budget.

    None is stopped early, and none is started that could not finish before `deadline`.
    For the rest see `run_sweep`.
    """
    work = _Work(
        spec=spec,
        folder=folder,
        images=images,
        splits=splits,
        numerics=numerics,
        rungs=spec.rungs[-1:],
        deadline=deadline,
        storage=_storage(storage, folder, journal),
        cache=cache,
        trainer=trainer,
    )
    recorder = work.recorder(journal, "seed", None, on_event)
    recorder.settle()
    known = {trial.trial: trial for trial in recorder.history.of("seed")}
    fresh = [
        Suggestion(
            trial=f"s{number:02d}",
            number=number,
            kind="seed",
            recipe=recipe,
            seed=derive_seed(spec.seed, "seed", number),
        )
        for number in range(count)
    ]
    again = [Suggestion.again(trial) for trial in known.values() if trial.status is None]
    source = FixedTrials(
        [*again, *(seed for seed in fresh if seed.trial not in known)],
        launch=work.launcher(recorder),
        late=lambda: work.late(recorder, recipe),
    )
    return _run(work, recorder, source)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What all trials of one call share."""

    spec: SweepSpec
    folder: RunFolder
    images: ImageSet
    splits: Splits
    numerics: Numerics
    rungs: tuple[int, ...]
    deadline: float | None
    storage: Storage
    cache: Path | None
    trainer: str

    def recorder(
        self, journal: Journal, kind: Kind, asha: Asha | None, on_event: EventSink
    ) -> Recorder:
        """The bookkeeping of this call."""
        return Recorder(
            journal,
            self.folder,
            self.storage,
            kind=kind,
            rungs=self.rungs,
            asha=asha,
            observers=[on_event],
        )

    def late(self, recorder: Recorder, recipe: Recipe | None) -> bool:
        """Whether a trial that starts now would be scored only after the deadline."""
        if self.deadline is None:
            return False
        pace = recorder.history.pace(None if recipe is None else recipe.to_mapping())
        return time.time() + (pace or 0.0) * self.rungs[0] > self.deadline

    def launcher(self, recorder: Recorder) -> Callable[[Suggestion], dict[str, Any] | None]:
        """A function that journals a trial's start and makes its configuration."""
        shared = {
            "images": ray.put(self.images) if self._small() else None,
            "splits": ray.put(self.splits),
            "dataset": to_mapping(self.spec.dataset),
            "cache": None if self.cache is None else str(self.cache),
            "folder": str(Path.cwd()),
            "trainer": self.trainer,
            "resources": trial_shares(self.spec.concurrent, self.numerics)[1],
        }
        about = {"machine": machine_description(), "code_version": code_version()}

        def launch(suggestion: Suggestion) -> dict[str, Any]:
            start = recorder.started(suggestion, self._start(suggestion, about))
            found = [path for path in suggestion.checkpoints if self.storage.holds(path)]
            return {
                **shared,
                "start": to_mapping(start),
                "resume_from": [self.storage.uri(path) for path in found],
            }

        return lambda suggestion: recorder.safely(lambda: launch(suggestion), None)

    def _small(self) -> bool:
        """Whether the images go to the workers as they are, rather than through a cache."""
        return self.images.images.nbytes <= SENT_BYTES

    def _start(self, suggestion: Suggestion, about: Mapping[str, Any]) -> TrialStart:
        return TrialStart(
            trial=suggestion.trial,
            kind=suggestion.kind,
            recipe=suggestion.recipe,
            seed=suggestion.seed,
            rungs=self.rungs,
            data={
                **to_mapping(self.spec.dataset),
                "splits": to_mapping(self.spec.splits),
                "fingerprint": self.images.fingerprint,
            },
            split_id=self.splits.split_id,
            numerics=self.numerics,
            **about,
        )


def _run(work: _Work, recorder: Recorder, source: FixedTrials) -> SweepOutcome:
    began = time.time()
    kind = recorder.kind
    try:
        if source.more and recorder.error is None:
            _fit(work, recorder, source)
    except KeyboardInterrupt:
        _announce(recorder, "interrupted")
        raise
    except OSError as error:
        raise unwritable(work.folder, error) from error
    if recorder.error is not None:
        raise recorder.error
    count = {
        status: recorder.history.count(kind, status)
        for status in ("completed", "pruned", "failed", None)
    }
    reason: Literal["finished", "time_budget"]
    reason = "time_budget" if source.more or count[None] else "finished"
    if recorder.history.last_end.get(kind) != "finished" or source.launched:
        _announce(recorder, reason)
    return SweepOutcome(
        kind=kind,
        reason=reason,
        completed=count["completed"],
        pruned=count["pruned"],
        failed=count["failed"],
        unfinished=count[None],
        seconds=time.time() - began,
    )


def _announce(recorder: Recorder, reason: str) -> None:
    ended = sum(trial.status is not None for trial in recorder.history.of(recorder.kind))
    recorder.emit(
        {"event": "sweep_ended", "kind": recorder.kind, "reason": reason, "trials": ended}
    )


def _fit(work: _Work, recorder: Recorder, source: FixedTrials) -> None:
    # One folder a session, so that a trial gone on with never overwrites its checkpoints.
    session = f"{recorder.kind}-{len(recorder.journal.events):06d}"
    # Not through tune.Tuner, which pickles all that it is given to a file for its restore.
    tune.run(
        QuorumTrial,
        name=session,
        storage_path=work.storage.root,
        num_samples=-1,
        search_alg=source,
        scheduler=TuneAsha(recorder.decide),
        max_concurrent_trials=trial_shares(work.spec.concurrent, work.numerics)[0],
        reuse_actors=True,
        trial_name_creator=trial_name,
        trial_dirname_creator=trial_name,
        stop=Deadline(work.deadline, recorder),
        max_failures=RETRIES,
        raise_on_failed_trial=False,
        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        callbacks=[Hooks(recorder)],
        verbose=0,
    )
    recorder.tidy()


def _storage(root: str | None, folder: RunFolder, journal: Journal) -> Storage:
    """The run's own folder: other runs of its name may share the root."""
    born = int(journal.events[0]["time"]) if journal.events else 0
    return Storage(folder.checkpoints if root is None else f"{root}/{folder.name}-{born}")
