"""One training, an epoch at a time, that can be put down and taken up anywhere.

Axes: N images, S×S pixels, K classes, B images of a batch.

What is scored is never the raw weights: it is their moving average with batch
normalization's statistics measured again on a fixed, unaugmented part of train, so that
a rung's score does not depend on how far the running averages happened to have come.

Every draw of an epoch comes from a stream named by the epoch's step. A checkpoint
therefore holds no generator, and a resumed training on CPU ends bitwise where an
uninterrupted one ends.
"""

import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import Tensor

from trainables.augment import Batch, augment, check_cutout
from trainables.checkpoint import load_checkpoint, save_checkpoint
from trainables.datasets import ImageSet
from trainables.errors import DivergedError, SpecError
from trainables.identity import identity_of, require_same
from trainables.losses import (
    Distillation,
    cross_entropy,
    distillation_loss,
    label_weights,
    soft_targets,
)
from trainables.metrics import accuracy, apply_temperature, fit_temperature, nll
from trainables.models import STATISTICS_IMAGES, Classifier, build_model
from trainables.optim import EpochPlan, learning_rate, make_optimizer, plan_epochs
from trainables.prediction import (
    PixelSource,
    apply_numerics,
    autocast,
    evenly_spaced,
    load_trained,
    log_probs_of,
    place_model,
    predict_log_probs,
    recalibrate,
    save_weights,
)
from trainables.recipe import Numerics, Recipe
from trainables.replica import Replica
from trainables.seeds import global_torch_stream, torch_generator
from trainables.snapshot import part_of, put_snapshot, take_snapshot
from trainables.splits import Splits

__all__ = [
    "EpochReport",
    "Teacher",
    "Training",
    "apply_numerics",
    "load_trained",
    "predict_log_probs",
    "save_weights",
]

Teacher = Callable[[Tensor], Tensor]
"""Augmented images, float [B, 3, S, S] in [0, 1], to log-probabilities [B, K]."""

RECALIBRATION_IMAGES = 2048
"""Most training images from which batch normalization's statistics are measured again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """What one epoch came to: the payload of the journal's `epoch` event."""

    step: int
    """Epochs trained so far, cooldown branches included."""
    epoch: int
    """Epoch of the schedule that ended, from 1; equal to the rung at its end."""
    phase: Literal["trunk", "cooldown"]
    rung: int | None
    """The rung that this epoch ends."""
    train_loss: float
    """Mean of the loss that was minimized, in nats."""
    val_nll: float
    """After one temperature fitted on val, in nats."""
    val_accuracy: float
    temperature: float
    lr: float
    """Learning rate of the last optimizer step."""
    seconds: float
    """Wall time of the epoch, scoring included."""
    images_per_second: float
    """Training images per second of training, scoring left out."""
    peak_memory_bytes: int
    """Of the process since its start (CPU), or of torch's allocator in this training (CUDA)."""


class Training:
    """A training in progress: net, optimizer, moving average, and the trunk put aside."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        rungs: Sequence[int],
        seed: int,
        numerics: Numerics,
        images: ImageSet,
        splits: Splits,
        teacher: Teacher | None = None,
        distillation: Distillation | None = None,
        replica: Replica | None = None,
    ) -> None:
        """Build the net from (recipe, seed) and lay out the schedule; nothing is trained yet.

        Sets torch's thread count to numerics.threads. `teacher` and `distillation` come
        together or not at all. With a `replica`, every batch is shared with other processes.

        Raises:
            SpecError: a recipe that these images, rungs or this batch size do not allow.
        """
        apply_numerics(numerics)
        self.step = 0
        """Epochs trained so far, cooldown branches included."""
        self.plans = plan_epochs(rungs, recipe)
        """All epochs of the schedule, the trained ones included."""
        self._recipe, self._seed, self._numerics = recipe, seed, numerics
        self._batch = min(recipe.batch_size, len(splits.train))
        self.batches = len(splits.train) // self._batch
        """Optimizer steps of an epoch."""
        if self._batch < 2 * (replica.world if replica else 1):
            raise SpecError(
                f"batch_size must be at least 2 a process to normalize, got {self._batch}"
            )
        check_cutout(recipe.cutout, images.image_size)
        if (teacher is None) != (distillation is None):
            raise SpecError("teacher and distillation come together or not at all")
        self._teacher, self._distillation, self._replica = teacher, distillation, replica
        self._identity = identity_of(
            recipe, rungs=rungs, seed=seed, split_id=splits.split_id, distillation=distillation
        )
        self._images = images.images
        self._classes = len(images.class_names)
        self._train = PixelSource(images.images, splits.train, numerics)
        self._val = PixelSource(images.images, splits.val, numerics)
        self._train_labels = torch.from_numpy(images.labels[splits.train]).to(numerics.device)
        self._label_weights = label_weights(
            self._train_labels, classes=self._classes, kind=recipe.class_weights
        )
        self._flips = _first_flips(recipe, len(splits.train), seed)
        self._val_labels = images.labels[splits.val]
        self._recalibration = evenly_spaced(len(splits.train), RECALIBRATION_IMAGES)
        self._model = build_model(
            recipe,
            classes=self._classes,
            image_size=self._train.image_size,
            train_images=images.images[
                splits.train[evenly_spaced(len(splits.train), STATISTICS_IMAGES).numpy()]
            ],
            seed=seed,
        )
        place_model(self._model, numerics)
        self._optimizer = make_optimizer(self._model, recipe)
        # The decay warms up as 1 − (1 + steps)^(−2/3), so that a rung of a few dozen steps
        # does not score its random start.
        self._ema = ModelEmaV3(self._model, decay=recipe.ema_decay, use_warmup=True)
        self._state = (self._model, self._ema.module, self._optimizer)
        self._trunk: dict[str, Tensor] | None = None

    @property
    def params(self) -> int:
        """Number of the net's parameters, frozen ones included."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    @property
    def finished(self) -> bool:
        """Every epoch of the schedule is trained."""
        return self.step == len(self.plans)

    def reports(self) -> Iterator[EpochReport]:
        """Train on from the current step; one report after every epoch.

        Raises:
            DivergedError: a loss or a score that is not finite, as soon as it is seen.
        """
        if self._numerics.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self._numerics.device)
        while not self.finished:
            plan = self.plans[self.step]
            started = time.perf_counter()
            if plan.restore:
                assert self._trunk is not None
                put_snapshot(self._trunk, *self._state)
                self._trunk = self._trunk if plan.keep else None
            elif plan.keep:
                self._trunk = take_snapshot(*self._state)
            train_loss = self._train_epoch(plan)
            trained = time.perf_counter()
            self.step = plan.step
            scores = self._score(plan)
            yield EpochReport(
                step=plan.step,
                epoch=plan.epoch,
                phase=plan.phase,
                rung=plan.rung,
                train_loss=train_loss,
                lr=self._optimizer.param_groups[0]["lr"],
                seconds=time.perf_counter() - started,
                images_per_second=self.batches * self._batch / (trained - started),
                peak_memory_bytes=_peak_memory_bytes(self._numerics.device),
                **scores,
            )

    def rehearse(self, steps: int) -> None:
        """Take that many steps of the first epoch, to see how long they last.

        The training is spoilt by it, and draws dropout from torch's global stream.
        """
        self._model.train()
        generator = torch_generator(self._seed, "augment", 0, device=self._numerics.device)
        positions = torch.arange(self._batch)
        for _ in range(steps):
            loss = self._train_step(positions, generator)
            self._ema.update(self._model, step=1)
            loss.item()  # waits for the device

    def scored_model(self) -> Classifier:
        """The net that the last report scored, in eval mode; it changes as training goes on."""
        model: Classifier = self._ema.module
        return model

    def log_probs(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Log-probabilities [n, K] of the scored net for the images at `indices` of the set."""
        return predict_log_probs(self.scored_model(), self._images, self._numerics, indices=indices)

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint; see trainables/checkpoint.py."""
        tensors = {f"now.{name}": value for name, value in take_snapshot(*self._state).items()}
        tensors |= {f"trunk.{name}": value for name, value in (self._trunk or {}).items()}
        state = {"training": self._identity, "step": self.step, "trunk": self._trunk is not None}
        save_checkpoint(folder, tensors, state)

    def load(self, folder: str | Path) -> None:
        """Continue from a checkpoint of the same recipe, rungs, seed and split.

        Before the first cooldown, epochs and rungs may be others: see trainables/identity.py.

        Raises:
            RunError: the checkpoint is damaged, or of another training.
        """
        tensors, state = load_checkpoint(folder)
        require_same(state["training"], self._identity, step=state["step"], where=folder)
        put_snapshot(part_of(tensors, "now."), *self._state)
        self._trunk = part_of(tensors, "trunk.") if state["trunk"] else None
        self.step = state["step"]

    def _train_epoch(self, plan: EpochPlan) -> float:
        """One pass over train; the mean loss. Every draw comes from a stream of plan.step."""
        device = self._numerics.device
        order = torch.randperm(
            len(self._train), generator=torch_generator(self._seed, "order", plan.step)
        )
        generator = torch_generator(self._seed, "augment", plan.step, device=device)
        total = torch.zeros((), device=device)
        self._model.train()
        ranks = () if self._replica is None else (self._replica.rank,)
        with global_torch_stream(self._seed, "dropout", plan.step, *ranks, device=device):
            for i in range(self.batches):
                rate = learning_rate(plan, (i + 0.5) / self.batches, self._recipe)
                for group in self._optimizer.param_groups:
                    group["lr"] = rate
                positions = order[i * self._batch : (i + 1) * self._batch]
                total += self._train_step(positions, generator, epoch=plan.epoch)
                # Reading a loss waits for the device; on CUDA once an epoch is often enough.
                if device == "cpu" or i == self.batches - 1:
                    _require_finite(float(total), "training loss", plan)
                if self._recipe.ema_decay > 0:
                    done = (plan.epoch - 1) * self.batches + i + 1
                    self._ema.update(self._model, step=done)
        return float(total) / self.batches

    def _train_step(
        self, positions: Tensor, generator: torch.Generator, *, epoch: int = 1
    ) -> Tensor:
        recipe, flips = self._recipe, None
        if self._flips is not None:
            flips = (self._flips[positions] ^ (epoch % 2 == 0)).to(self._numerics.device)
        batch = augment(
            self._train.batch(positions),
            self._train_labels[positions.to(self._train_labels.device)],
            recipe,
            mean=self._model.mean,
            generator=generator,
            flips=flips,
        )
        if self._replica is not None:
            batch = self._replica.part(batch)
        with autocast(self._numerics):
            logits = self._model(batch.images)
        loss = self._loss(logits, batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._replica is not None:
            share = len(batch.images) / len(positions)
            loss = self._replica.average(loss, self._model, share)
        self._optimizer.step()
        return loss.detach()

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        targets = soft_targets(
            batch.labels_a,
            batch.labels_b,
            batch.share,
            classes=self._classes,
            smoothing=self._recipe.label_smoothing,
            weights=self._label_weights,
        )
        if self._teacher is None or self._distillation is None:
            return cross_entropy(logits, targets)
        with torch.no_grad():
            taught = self._teacher(batch.images).to(logits.device)
        return distillation_loss(logits, targets, taught, self._distillation)

    def _score(self, plan: EpochPlan) -> dict[str, float]:
        """Recalibrate the averaged net and score it on val."""
        if self._recipe.ema_decay == 0:
            self._ema.set(self._model)  # type: ignore[no-untyped-call]
        model = self.scored_model()
        recalibrate(model, self._train, self._recalibration, self._numerics)
        logp = log_probs_of(model, self._val, self._numerics)
        _require_finite(float(logp.min()), "score on val", plan)
        temperature = fit_temperature(logp, self._val_labels)
        return {
            "val_nll": nll(apply_temperature(logp, temperature), self._val_labels),
            "val_accuracy": accuracy(logp, self._val_labels),
            "temperature": temperature,
        }


def _first_flips(recipe: Recipe, count: int, seed: int) -> Tensor | None:
    """Which training images are mirrored in odd epochs, bool [N], if flips alternate."""
    if not (recipe.flip and recipe.alternating_flip):
        return None
    return torch.rand(count, generator=torch_generator(seed, "flips")) < 0.5


def _require_finite(value: float, what: str, plan: EpochPlan) -> None:
    if not math.isfinite(value):
        raise DivergedError(
            f"the {what} became {value} in epoch {plan.epoch} (step {plan.step}); "
            f"lower the learning rate or lengthen the warm-up"
        )


def _peak_memory_bytes(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
