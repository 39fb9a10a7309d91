"""Simulate Tune without Ray: one trial at a time in this process, with the same hooks in order.

Runs a sweep with the fake trainer in a few hundredths of a second, so that it can be
killed at every point where it touches the disk.
"""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune import Checkpoint
from ray.tune.search import Searcher

from journal.emitter import Emitter
from journal.events import Event, RunResumed, RunStarted
from journal.journal import SYNC_SECONDS, Journal
from search.samplers.optuna_sampler import OptunaSampler
from search.samplers.suggestions import Suggestion
from search.schedulers.asha import Asha
from search.space.spec import SweepSpec
from search.space.sweep_files import spec_from_mapping
from search.timetable.capacity import Capacity, Node
from search.timetable.deadlines import Deadlines
from search.tune.adapters import TuneCallback, TuneSearcher
from search.tune.disk import DiskBudget
from search.tune.launching import Launcher
from search.tune.occupancy import Occupancy
from search.tune.packing import Packing
from search.tune.recorder import Recorder
from search.tune.storage import Storage
from tests.fake_training import FakeTraining
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits, make_splits
from trainables.recipe import Numerics
from trainables.records import RunFolder, TrialStart, start_to_text
from trainables.trainer import TrainerFactory
from trainables.trial import QuorumTrial

SPEC = spec_from_mapping(
    {
        "name": "simulated",
        "trials": 6,
        "rungs": [1, 2, 4],
        "reduction_factor": 2,
        "startup_trials": 3,
        "splits": {"counts": [30, 20, 20]},
        "space": {
            "dropout": {"type": "float", "low": 0.0, "high": 0.9},
            "weight_decay": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        },
    }
)


TRAINER: TrainerFactory = FakeTraining


def small_images(count: int = 100) -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(
        name="noise",
        images=rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
        labels=np.arange(count, dtype=np.int64) % 2,
        class_names=("even", "odd"),
    )


IMAGES = small_images()
NODE = Capacity(nodes=(Node(cores=1),))
SPLITS = make_splits(IMAGES, SPEC.splits)


def config_of(
    start: TrialStart, *, splits: Splits = SPLITS, resume_from: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a trial's configuration, with the data in place of Ray references."""
    return {
        "trial": start.trial,
        "start": start_to_text(start),
        "images": IMAGES,
        "splits": splits,
        "folder": ".",
        "resume_from": [Checkpoint(path) for path in resume_from],
        "cache": None,
        "trainer": TRAINER,
        "resources": {"CPU": 1},
    }


def start_of(suggestion: Suggestion, rungs: tuple[int, ...]) -> TrialStart:
    return TrialStart(
        trial=suggestion.trial,
        kind=suggestion.kind,
        recipe=suggestion.recipe,
        seed=suggestion.seed,
        rungs=rungs,
        data={"name": "noise", "fingerprint": IMAGES.fingerprint},
        split_id=SPLITS.split_id,
        numerics=Numerics(),
        code_version="0",
        machine={},
    )


def start_or_resume(emitter: Emitter, spec: SweepSpec) -> None:
    """Journal the start of the run, or its resume by another process."""
    if emitter.state.started is None:
        emitter.emit(RunStarted(run=spec.name, spec=spec.to_mapping()))
    else:
        emitter.emit(RunResumed(run=spec.name))


class Sweep:
    """A sweep's parts, put together as `search.tune.sweep` does."""

    def __init__(
        self,
        folder: RunFolder,
        spec: SweepSpec = SPEC,
        *,
        storage: Storage | None = None,
        trial: type[QuorumTrial] = QuorumTrial,
        deadlines: Deadlines = Deadlines(),  # noqa: B008 (frozen)
        disk: float | None = None,
        sync_seconds: float = SYNC_SECONDS,
    ) -> None:
        self.folder, self.spec, self._trial = folder, spec, trial
        self.journal = Journal(folder.journal, clock=lambda: 1.0, sync_seconds=sync_seconds)
        self.seen: list[Event] = []
        self.emitter = Emitter(self.journal, [self.seen.append])
        start_or_resume(self.emitter, spec)
        self.storage = storage or Storage(folder.checkpoints)
        self.session = f"search-{self.journal.state.count:06d}"
        self.recorder = Recorder(
            self.emitter,
            folder,
            self.storage,
            kind="search",
            rungs=spec.rungs,
            scheduler=Asha(spec.rungs, spec.reduction_factor),
            deadlines=deadlines,
            disk=None if disk is None else DiskBudget(folder, limit=disk, members=1),
        )
        self.recorder.settle()
        packing = Packing(Numerics(), self.emitter.state, capacity=lambda: NODE)
        self.launcher = Launcher(
            spec=spec,
            images=IMAGES,
            splits=SPLITS,
            numerics=Numerics(),
            rungs=spec.rungs,
            recorder=self.recorder,
            shared={
                "images": IMAGES,
                "splits": SPLITS,
                "cache": None,
                "trainer": TRAINER,
            },
            packing=packing,
            occupancy=Occupancy(packing, lambda: NODE),
            about={"machine": {}, "code_version": "0"},
        )
        self.sampler = OptunaSampler(
            spec.search_space(),
            self.emitter.state,
            trials=spec.trial_count,
            startup_trials=spec.startup_trials,
            seed=spec.seed,
            study="simulated",
            path=folder.optuna,
        )
        self.searcher = TuneSearcher(
            self.sampler, launch=self.launcher.launch, fits=self.launcher.fits
        )

    def run(self) -> None:
        """Run trials until none is left."""
        callback = TuneCallback(self.recorder)
        with self.emitter.observed_by(self.sampler.observe):
            while (config := self.searcher.suggest("any")) != Searcher.FINISHED:
                self._run_trial(config, callback)
        if self.recorder.error is not None:
            raise self.recorder.error
        self.recorder.tidy()
        self.journal.close()

    def _run_trial(self, config: dict[str, Any], callback: TuneCallback) -> None:
        trial: Any = SimpleNamespace(
            config=config, last_result={}, error_file="", max_failures=0, num_failures=0
        )
        name = config["trial"]
        callback.on_trial_start(trial=trial)
        trainable = self._trial(config)
        saved = 0
        while True:
            result = trainable.step()
            continues = not result["done"] and self.recorder.decide(name, result)
            callback.on_trial_result(trial=trial, result=result)
            trial.last_result = result
            if result.get("should_checkpoint"):
                checkpoint = self._save(trainable, f"{self.session}/{name}/checkpoint_{saved:06d}")
                callback.on_checkpoint(trial=trial, checkpoint=checkpoint)
                saved += 1
            if not continues:
                callback.on_trial_complete(trial=trial)
                return

    def _save(self, trainable: QuorumTrial, path: str) -> Any:
        # Tune saves into a folder of the worker first, then copies it to the storage.
        local = Path(self.folder.root, "worker")
        shutil.rmtree(local, ignore_errors=True)
        local.mkdir(parents=True)
        trainable.save_checkpoint(str(local))
        kept = self.storage.checkpoint(path)
        shutil.copytree(local, kept.path)
        return kept
