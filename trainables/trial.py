"""One trial in a Ray Tune worker: one epoch per step, resumable, many trials per process.

Axes: N examples of a split, K classes.

A result has the fields of an `epoch` event and Tune's keys: `done` after the last epoch, and
`should_checkpoint` after a rung or if the last checkpoint is 15 s old. If a training diverges or
its recipe is impossible, its result has the key `failure`. Any other exception is raised, and
Tune restarts the trial.

A checkpoint is a folder: `training/` (written by the trainer's `save`), `trial.json`, and, right
after a rung, the trial's results: val.npy and holdout.npy (float32 log-probabilities [N, K])
and weights.safetensors.
"""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import ray
from ray import tune

from common.errors import DataError, DivergedError, MissingWeightsError, RunError, SpecError
from common.failures import note_peak_memory, says_out_of_memory
from common.files import dump_json, file_sha256, read_json
from common.parsing import from_mapping, to_mapping
from common.peak_memory import peak_memory_bytes
from common.plugins import add_import_folder
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.device.kinds import NumericsHere, device_memory, machine_here
from trainables.initial_weights import require_recorded_weights
from trainables.recipe import Numerics, Recipe
from trainables.records import WEIGHTS, start_from_text
from trainables.time_limit import TimeLimit
from trainables.trainer import EpochReport, FeatureCache, Trainer, TrainerFactory
from trainables.trial_data import data_of_trial, features_folder, inside

if TYPE_CHECKING:
    from trainables.feature_files import FeatureFiles

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 15.0
"""Interval between checkpoints: a killed process loses this much work and the current epoch."""

TRIAL_FILE = "trial.json"
RESULT_FILES = ("val.npy", "holdout.npy", WEIGHTS)
"""The files of a checkpoint that a record keeps."""

TRAINING = "training"


def default_trainer(recipe: Recipe, **options: Any) -> Trainer:
    """Build a `trainables.training.loop.Training`.

    Only workers call this function, so the driver need not load torch.
    """
    from trainables.training.loop import Training

    return Training(recipe, **options)


class QuorumTrial(tune.Trainable):
    """Trains the recipe of `config["start"]`.

    `config` holds

    - `trial`: its name, and `start`: a TrialStart as text, see `start_to_text`,
    - `images` and `splits`: the objects or Ray references to them; `images` may also be an object
      that fetches them (`receive`), or None if this machine's cache has them,
    - `dataset`: a DatasetSpec as a mapping, and `cache`: the folder of decoded images, or None,
    - `features`: the name of the folder in which each machine caches features; left out for none,
    - `folder`: the folder that relative paths, custom networks and custom data sets refer to,
    - `resume_from`: Tune's checkpoints, to try in this order,
    - `trainer`: a TrainerFactory,
    - `stop_by`: the unix time at which the trial is stopped if it has not ended; None for never,
    - `shortened_to`: the last rung, if an earlier attempt has shortened the schedule, or None,
    - `resources`, and `avoid`: Ray's name of a node on which it may not start, or empty,
    - `measured_on`: the kind of machine that the numerics suit; None if all machines are alike.
    """

    clock: Callable[[], float] = staticmethod(time.monotonic)
    now: Callable[[], float] = staticmethod(time.time)

    _features: FeatureCache
    """Shared by all trials of this process."""
    _here: NumericsHere
    """Shared by all trials of this process, too."""
    _numerics: Numerics
    """Those that the trial trains with."""
    _trainer: Trainer | None
    """None until the first epoch."""
    _reports: Iterator[EpochReport]
    """Trains the remaining epochs."""
    _rungs: tuple[int, ...]
    """Those of `start`, unless the schedule was shortened to end in time."""
    _limit: TimeLimit
    _rung: int | None
    """The rung that ended with the last epoch, if any."""
    _scored: Mapping[str, Any]
    """Indices, by split, of the images whose log-probabilities are saved at a rung."""
    _saved_at: float

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Return the resources of a trial; called by Tune."""
        return requested(config["resources"], avoid=config.get("avoid", ""))

    def setup(self, config: dict[str, Any]) -> None:
        """Prepare the first trial of this process; called by Tune.

        Nothing is built before the first epoch, because Tune restarts a trial if an epoch fails
        but not if its set-up fails.
        """
        self._features = FeatureCache(files=_feature_files(config))
        self._here = NumericsHere()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Prepare the next trial of this process; called by Tune."""
        self._config = new_config
        self._start = start_from_text(new_config["start"])
        self._trainer, self._reports = None, iter(())  # their memory is free for the next ones
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch; called by Tune.

        If this machine cannot get the images, the trial fails at once: a retry would not help.
        """
        try:
            trainer = self._trainer or self._begin(self._config["resume_from"])
            report = next(self._reports)
        except MissingWeightsError:
            raise  # another worker, or a later try, may have them
        except (DivergedError, SpecError, DataError) as error:
            return {
                "done": True,
                "failure": str(error),
                "cause": "machine" if isinstance(error, DataError) else "recipe",
                "host": os.uname().nodename,
                "params": 0 if self._trainer is None else self._trainer.params,
            }
        except StopIteration:
            raise RunError(f"{self._start.trial} has no epoch left to train") from None
        except Exception as error:
            # Before the trainer is built, a GPU's peak is that of the trial before.
            if self._trainer and says_out_of_memory(f"{type(error).__name__}: {error}"):
                note_peak_memory(error, peak_memory_bytes(self._numerics.device))
            raise
        self._rung, params = report.rung, trainer.params
        due = self.clock() - self._saved_at >= CHECKPOINT_SECONDS
        shorter = self._limit.shorter(report)
        if shorter is not None:
            due = True
            del trainer  # its memory is free for the next one
            self._shorten(shorter)
        return {
            **to_mapping(report),
            "node_id": _node_id(),
            "device_memory_bytes": device_memory(self._numerics.device),
            "params": params,
            "shortened_to": None if self._rungs == self._start.rungs else self._rungs[-1],
            "done": report.rung == self._rungs[-1],
            "should_checkpoint": due or report.rung is not None,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write a checkpoint; called by Tune after a step.

        Tune copies it to the storage and deletes it, so its files need no sync.
        """
        assert self._trainer is not None
        folder, trainer = Path(checkpoint_dir), self._trainer
        trainer.save(folder / TRAINING)
        sums = {}
        if self._rung is not None:
            for split, indices in self._scored.items():
                np.save(folder / f"{split}.npy", trainer.log_probs(indices), allow_pickle=False)
            trainer.save_weights(folder / WEIGHTS)
            sums = {name: file_sha256(folder / name) for name in RESULT_FILES}
        about = {
            "trial": self._start.trial,
            "rung": self._rung,
            "rungs": list(self._rungs),
            "params": trainer.params,
            "numerics": to_mapping(self._numerics),
            "machine": machine_here(self._numerics.device),
            "halvings": [list(halving) for halving in getattr(trainer, "halvings", ())],
            "sha256": sums,
        }
        (folder / TRIAL_FILE).write_text(dump_json(about))
        self._saved_at = self.clock()

    def restore(self, checkpoint_path: Any) -> None:
        """Resume from a checkpoint; called by Tune after a failure.

        Tune's own method would unpickle a file that anyone with access to the storage can put
        there.
        """
        checkpoint = getattr(checkpoint_path, "checkpoint", checkpoint_path)
        if isinstance(checkpoint, str):
            checkpoint = tune.Checkpoint(checkpoint)
        self._begin([checkpoint, *self._config["resume_from"]])

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Resume from a checkpoint; called by Tune after a failure."""
        self._begin([tune.Checkpoint(checkpoint), *self._config["resume_from"]])

    def _begin(self, checkpoints: Sequence[tune.Checkpoint]) -> Trainer:
        """Build the trainer and resume from the first checkpoint that can be loaded, if any."""
        add_import_folder(self._config["folder"])
        images, splits = data_of_trial(self._config, self._start)
        with inside(self._config["folder"]):  # the path of pretrained weights may be relative
            require_recorded_weights(
                self._start.recipe.architecture, self._start.weights, where=self._start.trial
            )
            self._numerics = self._chosen_numerics(images)
            trainer = self._resumed(checkpoints, images, splits)
            if trainer is None:
                self._rungs = self._planned or self._start.rungs
                trainer = self._new_trainer(images, splits)
        self._trainer, self._reports, self._rung = trainer, trainer.reports(), None
        # A schedule is shortened only once, because its cooldown begins then.
        whole = self._rungs == self._start.rungs
        self._limit = self._new_limit(stop_by=self._config.get("stop_by") if whole else None)
        self._scored = {"val": splits.val, "holdout": splits.holdout}
        self._saved_at = self.clock()
        return trainer

    def _chosen_numerics(self, images: ImageSet) -> Numerics:
        measured_on = self._config.get("measured_on")
        if measured_on is None:
            return self._start.numerics
        return self._here.choose(
            self._start.recipe,
            self._start.numerics,
            measured_on=measured_on,
            classes=len(images.class_names),
            image_size=images.image_size,
        )

    def _resumed(
        self, checkpoints: Sequence[tune.Checkpoint], images: ImageSet, splits: Splits
    ) -> Trainer | None:
        """Return a trainer that has loaded the first checkpoint that it can, or None.

        The trainer keeps the numerics of the checkpoint, even if others are faster on this machine.
        """
        chosen = self._numerics
        for checkpoint in checkpoints:
            try:
                with checkpoint.as_directory() as folder:
                    about = read_json(Path(folder) / TRIAL_FILE)
                    if about.get("trial") != self._start.trial:
                        raise RunError(f"{folder} is a checkpoint of {about.get('trial')!r}")
                    if "numerics" in about:
                        self._numerics = from_mapping(Numerics, about["numerics"], where=TRIAL_FILE)
                    self._rungs = self._planned or tuple(about.get("rungs", self._start.rungs))
                    trainer = self._new_trainer(images, splits)
                    trainer.load(Path(folder) / TRAINING)
                    return trainer
            except (RunError, OSError, pyarrow.ArrowException) as error:
                log.warning(
                    "%s cannot resume from checkpoint %s: %s",
                    self._start.trial, checkpoint.path, error,
                )  # fmt: skip
        self._numerics = chosen
        return None

    def _shorten(self, rungs: tuple[int, ...]) -> None:
        """Continue with other `rungs`, from a checkpoint of this moment.

        If the trainer cannot, it continues with those it had.
        """
        assert self._trainer is not None
        images, splits = data_of_trial(self._config, self._start)
        before, self._rungs = self._rungs, rungs
        with tempfile.TemporaryDirectory() as folder, inside(self._config["folder"]):
            self._trainer.save(Path(folder))
            self._trainer, self._reports = None, iter(())  # one network in memory at a time
            trainer = self._new_trainer(images, splits)
            try:
                trainer.load(Path(folder))
            except RunError as error:
                log.warning("%s cannot be shortened: %s", self._start.trial, error)
                self._rungs = before
                trainer = self._new_trainer(images, splits)
                trainer.load(Path(folder))
        self._trainer, self._reports = trainer, trainer.reports()
        self._limit = self._new_limit(stop_by=None)

    @property
    def _planned(self) -> tuple[int, ...] | None:
        """The rungs that an earlier attempt has shortened the schedule to, if it has."""
        last = self._config.get("shortened_to")
        return None if last is None else (*self._start.rungs[:-1], last)

    def _new_limit(self, *, stop_by: float | None) -> TimeLimit:
        return TimeLimit(self._start.recipe, self._rungs, stop_by=stop_by, clock=self.now)

    def _new_trainer(self, images: ImageSet, splits: Splits) -> Trainer:
        factory: TrainerFactory = self._config["trainer"]
        return factory(
            self._start.recipe.with_values(epochs=self._rungs[-1]),
            rungs=self._rungs,
            seed=self._start.seed,
            numerics=self._numerics,
            images=images,
            splits=splits,
            features=self._features,
        )


def requested(resources: Mapping[str, float], *, avoid: str) -> tune.PlacementGroupFactory:
    """Return Ray's request for a trial's resources, on any node but `avoid`."""
    if not avoid:
        return tune.PlacementGroupFactory([dict(resources)])
    selector = [{"ray.io/node-id": f"!{avoid}"}]
    return tune.PlacementGroupFactory([dict(resources)], bundle_label_selector=selector)


def _feature_files(config: Mapping[str, Any]) -> "FeatureFiles | None":
    if "features" not in config:
        return None
    from trainables.feature_files import FeatureFiles  # loads torch

    cache = None if config["cache"] is None else Path(config["cache"])
    return FeatureFiles(features_folder(cache, config["features"]))


def _node_id() -> str:
    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""
