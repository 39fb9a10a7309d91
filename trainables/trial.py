"""One trial in a Ray Tune worker: an epoch a step, resumable, many trials a process.

Axes: N examples of a split, K classes.

A result is the payload of an `epoch` event, with Tune's own keys: `done` after the last
epoch, `should_checkpoint` after a rung, after the last epoch, and when the last checkpoint
is 15 s old. A training that diverges, or whose recipe cannot be, ends with `failure` in its
result; any other exception is left to Tune, which starts the trial again.

A checkpoint is a folder: `training/` (what `Training.save` writes), `trial.json`, and,
where a rung has just been scored, what the trial hands over: val.npy and holdout.npy
(float32 log-probabilities [N, K]) and weights.safetensors.
"""

import importlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, chdir, nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import ray
from ray import tune

from common.errors import DataError, DivergedError, RunError, SpecError
from common.files import dump_json, file_sha256, read_json, write_array, write_bytes_atomically
from common.parsing import from_mapping, to_mapping
from common.plugins import use_folder
from trainables.data.dataset import DatasetSpec, load_dataset
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.records import TrialStart
from trainables.training.feature_cache import FeatureCache

log = logging.getLogger(__name__)

TRAINER = "trainables.training.loop:Training"
"""The class that trains; tests put a quick one in its place."""

CHECKPOINT_SECONDS = 15.0
"""Most work that a killed process loses, a running epoch aside."""

ABOUT = "trial.json"
TRAINING = "training"
HANDED_OVER = ("val.npy", "holdout.npy", "weights.safetensors")


class QuorumTrial(tune.Trainable):
    """Trains the recipe of `config["start"]`.

    `config` holds `start` (a TrialStart as a mapping), `images` and `splits` (references
    into Ray's object store; None for images that every node maps from its own cache),
    `dataset` (a DatasetSpec as a mapping), `cache` (folder of decoded images, or None),
    `folder` (which relative data paths refer to, and where a net or a data set of the
    user's own is imported from), `resume_from` (checkpoints, the best first), `trainer`
    and `resources`.
    """

    _features: FeatureCache
    """Of the trials so far in this process."""
    _training: Any
    """The trainer's instance, usually a `trainables.training.loop.Training`; None until needed."""
    _reports: Iterator[Any]
    """What is still to be trained."""
    _rung: int | None
    """The rung that the last epoch ended."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Tune's hook: what a trial occupies."""
        return tune.PlacementGroupFactory([config["resources"]])

    def setup(self, config: dict[str, Any]) -> None:
        """Tune's hook: the first trial of this process.

        Nothing is built before the first epoch: Tune starts a trial again whose epoch
        fails, but gives up one whose preparation does.
        """
        self._features = FeatureCache()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Tune's hook: the next trial of this process."""
        self._config = new_config
        self._start = from_mapping(TrialStart, new_config["start"], where="start")
        self._training = None
        return True

    def step(self) -> dict[str, Any]:
        """Tune's hook: train one epoch.

        Raises:
            DataError: the data here are not those that the sweep was started with.
        """
        try:
            if self._training is None:
                self._begin(self._config["resume_from"])
            report = to_mapping(next(self._reports))
        except (DivergedError, SpecError) as error:
            params = 0 if self._training is None else self._training.params
            return {"done": True, "failure": str(error), "params": params}
        except StopIteration:
            raise RunError(f"{self._start.trial} has no epoch left to train") from None
        self._rung = report["rung"]
        old = time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS
        return {
            **report,
            "params": self._training.params,
            "done": self._rung == self._start.rungs[-1],
            "should_checkpoint": old or self._rung is not None,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune's hook: write a checkpoint."""
        folder = Path(checkpoint_dir)
        self._training.save(folder / TRAINING)
        if self._rung is not None:
            for split, indices in self._indices.items():
                write_array(folder / f"{split}.npy", self._training.log_probs(indices))
            weights = folder / "weights.safetensors"
            self._module.save_weights(self._training.scored_model(), weights)
        sums = {name: file_sha256(folder / name) for name in HANDED_OVER if self._rung is not None}
        about = {
            "trial": self._start.trial,
            "rung": self._rung,
            "params": self._training.params,
            "sha256": sums,
        }
        write_bytes_atomically(folder / ABOUT, dump_json(about).encode())
        self._saved_at = time.monotonic()

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Tune's hook, after a failure: go on from a checkpoint."""
        self._begin([checkpoint, *self._config["resume_from"]])

    def _begin(self, checkpoints: Sequence[str]) -> None:
        """Build the training and go on from the first checkpoint that loads, if one does."""
        use_folder(self._config["folder"])
        images, splits = _data(self._config, self._start)
        module, _, name = self._config["trainer"].partition(":")
        self._module = importlib.import_module(module)
        self._indices = {"val": splits.val, "holdout": splits.holdout}
        make = partial(
            getattr(self._module, name),
            self._start.recipe,
            rungs=self._start.rungs,
            seed=self._start.seed,
            numerics=self._start.numerics,
            images=images,
            splits=splits,
            features=self._features,
        )
        with _where_started(self._config["folder"]):  # weights to begin with may be relative
            self._training = make()
            for checkpoint in checkpoints:
                if self._loads(tune.Checkpoint(checkpoint)):
                    break
                self._training = make()
        self._reports = self._training.reports()
        self._rung = None
        self._saved_at = time.monotonic()

    def _loads(self, checkpoint: Any) -> bool:
        try:
            with checkpoint.as_directory() as folder:
                about = read_json(Path(folder) / ABOUT)
                if about.get("trial") != self._start.trial:
                    raise RunError(f"{folder} is a checkpoint of {about.get('trial')!r}")
                self._training.load(Path(folder) / TRAINING)
        except (RunError, OSError) as error:
            log.warning("%s cannot go on from %s: %s", self._start.trial, checkpoint.path, error)
            return False
        return True


def _data(config: Mapping[str, Any], start: TrialStart) -> tuple[ImageSet, Splits]:
    """The images, loaded once a process, and their splits; refused if they are others."""
    splits: Splits = ray.get(config["splits"])
    if config["images"] is not None:
        images: ImageSet = ray.get(config["images"])
    else:
        spec = from_mapping(DatasetSpec, config["dataset"], where="dataset")
        fingerprint = start.data["fingerprint"]
        images = _images(spec, config["cache"], config["folder"], fingerprint)
    for what, here, wanted in (
        ("fingerprint", images.fingerprint, start.data["fingerprint"]),
        ("split_id", splits.split_id, start.split_id),
    ):
        if here != wanted:
            raise DataError(
                f"{start.trial}: the data on {os.uname().nodename} have {what} {here}, the sweep "
                f"was started with {wanted}; give every node the same data"
            )
    return images, splits


@lru_cache(maxsize=1)
def _images(spec: DatasetSpec, cache: str | None, folder: str, fingerprint: str) -> ImageSet:
    with _where_started(folder):
        place = None if cache is None else Path(cache)
        return load_dataset(spec, cache=place, fingerprint=fingerprint)


def _where_started(folder: str) -> AbstractContextManager[None]:
    """In here, paths mean what they meant to the command, if this node has its folder."""
    return chdir(folder) if Path(folder).is_dir() else nullcontext()
