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
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.optim import Optimizer

from common.errors import DivergedError, SpecError
from common.seeds import global_torch_stream, torch_generator
from common.statistics.metrics import accuracy, apply_temperature, fit_temperature, nll
from trainables.augmentation.batch import check_augmentation
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.nets.build import STATISTICS_IMAGES, Classifier, build_model
from trainables.prediction import (
    PixelSource,
    apply_numerics,
    evenly_spaced,
    load_trained,
    log_probs_of,
    place_model,
    predict_log_probs,
    recalibrate,
    save_weights,
)
from trainables.recipe import Numerics, Recipe
from trainables.stages import stage_at
from trainables.training.checkpoint import load_checkpoint, save_checkpoint
from trainables.training.data_parallel import Replica
from trainables.training.epoch_report import EpochReport, peak_memory_bytes
from trainables.training.feature_cache import FeatureCache
from trainables.training.identity import identity_of, require_same
from trainables.training.losses import Distillation
from trainables.training.objective import Objective, Teacher
from trainables.training.optimizers import EpochPlan, learning_rate, plan_epochs, set_progress
from trainables.training.snapshot import part_of, put_snapshot, take_snapshot
from trainables.training.stage_learner import Learner

__all__ = [
    "EpochReport",
    "Teacher",
    "Training",
    "apply_numerics",
    "load_trained",
    "predict_log_probs",
    "save_weights",
]

RECALIBRATION_IMAGES = 2048
"""Most training images from which batch normalization's statistics are measured again."""


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
        features: FeatureCache | None = None,
    ) -> None:
        """Build the net from (recipe, seed) and lay out the schedule; nothing is trained yet.

        Sets torch's thread count to numerics.threads. `teacher` and `distillation` come
        together or not at all. With a `replica`, every batch is shared with other processes.
        `features` are those of earlier trainings in this process.

        Raises:
            SpecError: a recipe that these images, rungs or this batch size do not allow.
        """
        apply_numerics(numerics)
        self.step = 0
        """Epochs trained so far, cooldown branches included."""
        self.plans = plan_epochs(rungs, recipe)
        """All epochs of the schedule, the trained ones included."""
        self._seed, self._numerics = seed, numerics
        self._batch = min(recipe.optimizer.batch_size, len(splits.train))
        self.batches = len(splits.train) // self._batch
        """Optimizer steps of an epoch."""
        if self._batch < 2 * (replica.world if replica else 1):
            raise SpecError(
                f"batch_size must be at least 2 a process to normalize, got {self._batch}"
            )
        for index in range(max(1, len(recipe.schedule.stages))):
            check_augmentation(recipe.in_stage(index).augmentation, images.image_size)
        self._replica = replica
        self._identity = identity_of(
            recipe, rungs=rungs, seed=seed, split_id=splits.split_id, distillation=distillation
        )
        # Of a set smaller than a batch, all is one batch, and SGD's rate is that batch's.
        self._recipe = recipe = recipe.with_values(batch_size=self._batch)
        self._images = images.images
        self._train = PixelSource(images.images, splits.train, numerics)
        self._val = PixelSource(images.images, splits.val, numerics)
        self._train_labels = torch.from_numpy(images.labels[splits.train]).to(numerics.device)
        self._objective = Objective(
            recipe,
            self._train_labels,
            images.class_names,
            teacher=teacher,
            distillation=distillation,
        )
        self._flips = torch.rand(len(splits.train), generator=torch_generator(seed, "flips")) < 0.5
        """Which training images are mirrored in odd epochs where flips alternate."""
        self._val_labels = images.labels[splits.val]
        self._recalibration = evenly_spaced(len(splits.train), RECALIBRATION_IMAGES)
        self._model = build_model(
            recipe,
            classes=len(images.class_names),
            image_size=self._train.image_size,
            train_images=images.images[
                splits.train[evenly_spaced(len(splits.train), STATISTICS_IMAGES).numpy()]
            ],
            seed=seed,
        )
        place_model(self._model, numerics)
        self._learner = Learner(
            self._model,
            recipe,
            self._train,
            numerics,
            reuse=teacher is None,
            cache=features,
            data=f"{images.fingerprint} {splits.split_id}",
        )
        # The decay warms up as 1 − (1 + steps)^(−2/3), so that a rung of a few dozen steps
        # does not score its random start.
        self._ema = ModelEmaV3(self._model, decay=recipe.schedule.ema_decay, use_warmup=True)
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
            self._branch(plan)
            self._learner.enter(plan.stage)
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
                lr=learning_rate(plan, 1 - 0.5 / self.batches, self._recipe),
                seconds=time.perf_counter() - started,
                images_per_second=self.batches * self._batch / (trained - started),
                peak_memory_bytes=peak_memory_bytes(self._numerics.device),
                **scores,
            )

    def rehearse(self, steps: int, *, stage: int = 0) -> None:
        """Take that many steps as in the stage of this index, to see how long they last.

        The training is spoilt by it, and draws dropout from torch's global stream.
        """
        self._learner.enter(stage)
        self._learner.train()
        self._learner.begin(self._recipe.schedule.epochs)  # which most epochs are like
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
        """Write a checkpoint; see trainables/training/checkpoint.py."""
        tensors = {f"now.{name}": value for name, value in take_snapshot(*self._state()).items()}
        tensors |= {f"trunk.{name}": value for name, value in (self._trunk or {}).items()}
        state = {"training": self._identity, "step": self.step, "trunk": self._trunk is not None}
        save_checkpoint(folder, tensors, state)

    def load(self, folder: str | Path) -> None:
        """Continue from a checkpoint of the same recipe, rungs, seed and split.

        Before the first cooldown, epochs and rungs may be others: see
        trainables/training/identity.py.

        Raises:
            RunError: the checkpoint is damaged, or of another training.
        """
        tensors, state = load_checkpoint(folder)
        require_same(state["training"], self._identity, step=state["step"], where=folder)
        self.step = state["step"]
        self._learner.enter(self.plans[self.step - 1].stage if self.step else 0)
        put_snapshot(part_of(tensors, "now."), *self._state())
        self._trunk = part_of(tensors, "trunk.") if state["trunk"] else None

    def _state(self) -> tuple[Classifier, nn.Module, Optimizer]:
        """All that changes: the net, its moving average, the optimizer of the stage."""
        return self._model, self._ema.module, self._learner.optimizer

    def _branch(self, plan: EpochPlan) -> None:
        """Put the trunk back, or aside, where a cooldown ended or begins."""
        if plan.restore:
            assert self._trunk is not None
            # The optimizer put aside was that of the epoch before the branch.
            self._learner.enter(stage_at(self._recipe.schedule.stages, plan.epoch - 1))
            put_snapshot(self._trunk, *self._state())
            self._trunk = self._trunk if plan.keep else None
        elif plan.keep:
            self._trunk = take_snapshot(*self._state())

    def _train_epoch(self, plan: EpochPlan) -> float:
        """One pass over train; the mean loss. Every draw comes from a stream of plan.step."""
        device = self._numerics.device
        order = torch.randperm(
            len(self._train), generator=torch_generator(self._seed, "order", plan.step)
        )
        generator = torch_generator(self._seed, "augment", plan.step, device=device)
        total = torch.zeros((), device=device)
        self._learner.train()
        self._learner.begin(plan.epoch)
        ranks = () if self._replica is None else (self._replica.rank,)
        with global_torch_stream(self._seed, "dropout", plan.step, *ranks, device=device):
            for i in range(self.batches):
                done = (plan.epoch - 1) * self.batches + i
                rate = learning_rate(plan, (i + 0.5) / self.batches, self._recipe)
                set_progress(self._learner.optimizer, rate=rate, steps=done)
                positions = order[i * self._batch : (i + 1) * self._batch]
                total += self._train_step(positions, generator, epoch=plan.epoch)
                # Reading a loss waits for the device; on CUDA once an epoch is often enough.
                if device == "cpu" or i == self.batches - 1:
                    _require_finite(float(total), "training loss", plan)
                if self._recipe.schedule.ema_decay > 0:
                    self._ema.update(self._model, step=done + 1)
        return float(total) / self.batches

    def _train_step(
        self, positions: Tensor, generator: torch.Generator, *, epoch: int = 1
    ) -> Tensor:
        flips, recipe = None, self._learner.recipe
        if recipe.augmentation.flip and recipe.augmentation.alternating_flip:
            flips = (self._flips[positions] ^ (epoch % 2 == 0)).to(self._numerics.device)
        labels = self._train_labels[positions.to(self._train_labels.device)]
        batch = self._learner.batch(positions, labels, generator, flips=flips)
        if self._replica is not None:
            batch = self._replica.part(batch)
        logits, answers = self._learner.outputs(batch)
        loss = self._objective.loss(
            logits, answers, batch, smoothing=self._learner.recipe.loss.label_smoothing
        )
        optimizer = self._learner.optimizer
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._replica is not None:
            share = len(batch.images) / len(positions)
            loss = self._replica.average(loss, self._model, share)
        optimizer.step()
        return loss.detach()

    def _score(self, plan: EpochPlan) -> dict[str, float]:
        """Recalibrate the averaged net and score it on val."""
        if self._recipe.schedule.ema_decay == 0:
            self._ema.set(self._model)  # type: ignore[no-untyped-call]
        model = self.scored_model().eval()
        # Where only the head learns, the statistics belong to the features that it learns on.
        if not self._learner.head_only:
            recalibrate(model, self._train, self._recalibration, self._numerics)
        logp = log_probs_of(model, self._val, self._numerics)
        _require_finite(float(logp.min()), "score on val", plan)
        temperature = fit_temperature(logp, self._val_labels)
        return {
            "val_nll": nll(apply_temperature(logp, temperature), self._val_labels),
            "val_accuracy": accuracy(logp, self._val_labels),
            "temperature": temperature,
        }


def _require_finite(value: float, what: str, plan: EpochPlan) -> None:
    if not math.isfinite(value):
        raise DivergedError(
            f"the {what} became {value} in epoch {plan.epoch} (step {plan.step}); "
            f"lower the learning rate or lengthen the warm-up"
        )
