"""The training loop: one network, an epoch at a time, resumable after any epoch.

Axes: N images, S×S pixels, K classes, B images of a batch.

All random numbers of an epoch come from streams named by the number of epochs trained so far,
cooldown branches included. A checkpoint therefore needs no generator state, and on the CPU a
resumed training gives bitwise the same result as an uninterrupted one.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.errors import SpecError
from common.peak_memory import peak_memory_bytes, restart_peak_memory
from common.sampling import evenly_spaced
from common.seeds import global_torch_stream, torch_generator
from trainables.augmentation.batch import Batch, check_augmentation
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.lineage import SeenSplit, lineage_of, require_unseen
from trainables.nets.build import build_model
from trainables.nets.classifier import Classifier
from trainables.nets.custom import is_custom
from trainables.prediction import PixelSource, apply_numerics, place_model, predict_log_probs
from trainables.recipe import Numerics, Recipe
from trainables.stages import stage_at
from trainables.trainer import EpochReport, FeatureCache
from trainables.training.active_stage import ActiveStage
from trainables.training.averaging import WeightAverage
from trainables.training.captured_gradient import graph_of
from trainables.training.crop_source import CropSource
from trainables.training.data_parallel import DataParallel
from trainables.training.epoch_order import EpochOrder
from trainables.training.identity import training_identity
from trainables.training.losses import Distillation, Teacher, TrainingLoss
from trainables.training.optimizer_step import SMALLEST, OptimizerStep, StepPosition, loss_scaler
from trainables.training.optimizers import set_progress
from trainables.training.recalibration import is_recalibrated
from trainables.training.schedule import (
    EpochPlan,
    learning_rate,
    lookahead_step_size,
    plan_epochs,
)
from trainables.training.scoring import Scorer, require_finite
from trainables.training.state import TrainingState
from trainables.weights import save_weights


class Training:
    """A training in progress; a `trainables.trainer.Trainer`."""

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
        parallel: DataParallel | None = None,
        features: FeatureCache | None = None,
        halvings: Sequence[StepPosition] = (),
    ) -> None:
        """Build the network from (recipe, seed) and plan the schedule; train nothing yet.

        Sets torch's thread count to numerics.threads. `teacher` and `distillation` must be given
        together. With `parallel`, other processes train on the other shards of every batch.
        `features` holds the features of earlier trainings in this process. `halvings` are those
        of a recorded training, which are repeated.

        Raises:
            SpecError: the recipe does not suit these images, rungs or processes.
        """
        apply_numerics(numerics)
        self.step = 0
        """Epochs trained so far, cooldown branches included."""
        self.plans = plan_epochs(rungs, recipe)
        """All epochs of the schedule, from the first."""
        splits = with_train_share(splits, recipe.schedule.train_share)
        self._batch_size = min(recipe.optimizer.batch_size, len(splits.train))
        self._order = EpochOrder(
            len(splits.train), self._batch_size, passes=recipe.schedule.passes, seed=seed
        )
        self.batches = self._order.batches
        """Optimizer steps per epoch."""
        _check(recipe, images, self._batch_size, parallel)
        present = SeenSplit(fingerprint=images.fingerprint, split_id=splits.split_id)
        require_unseen(recipe.architecture, present)
        earlier = (split for split in lineage_of(recipe.architecture) if split != present)
        self._seen = (*earlier, present)
        self._identity = training_identity(
            recipe, rungs=rungs, seed=seed, split_id=splits.split_id, distillation=distillation
        )
        # A set smaller than a batch is one batch, and SGD's learning rate scales with its size.
        recipe = recipe.with_values(batch_size=self._batch_size)
        self._recipe, self._seed, self._numerics = recipe, seed, numerics
        self._images, self._parallel = images.images, parallel
        self._source = PixelSource(images.images, splits.train, numerics)
        self._labels = torch.from_numpy(images.labels[splits.train]).to(numerics.device)
        self._loss = TrainingLoss(
            recipe.loss,
            self._labels,
            images.class_names,
            teacher=teacher,
            distillation=distillation,
        )
        self._scorer = Scorer(self._source, images, splits, numerics)
        self._mirrored = (
            torch.rand(len(splits.train), generator=torch_generator(seed, "flips")) < 0.5
        )
        """Mask of the training images that are mirrored in odd passes if flips alternate."""
        self.model = _build(recipe, images, splits, numerics, seed)
        """The network being trained; `scored_model` returns its moving average."""
        self._stage = ActiveStage(
            self.model,
            recipe,
            self._source,
            numerics,
            crop_source=CropSource.of(images, splits.train, numerics),
            reuse_features=teacher is None,
            cache=features,
            data=f"{images.fingerprint} {splits.split_id} {recipe.schedule.train_share}",
        )
        loss_of = partial(_loss_of, self._stage, self._loss)
        self._scaler = loss_scaler(numerics)
        self._steps = OptimizerStep(
            self.model,
            loss_of,
            parallel=parallel,
            halvings=halvings,
            scaler=self._scaler,
            graph=None if teacher or is_custom(recipe.architecture.model) else graph_of(numerics),
        )
        self._average = _average_of(self.model, recipe)
        self._only_the_head_differs = False
        """True if the scored network equals the trained one below the head, which alone learns."""
        self._state = TrainingState(self._stage, self._average, self._identity, self._scaler)

    def start_from(self, trained: Classifier) -> None:
        """Take over the weights of a trained network of the same recipe, before the first epoch.

        Raises:
            SpecError: they are those of another network.
        """
        try:
            self.model.load_state_dict(trained.state_dict())
        except RuntimeError as error:
            raise SpecError(f"the initial weights fit another network: {error}") from None
        self._average = _average_of(self.model, self._recipe)
        self._state = TrainingState(self._stage, self._average, self._identity, self._scaler)

    @property
    def params(self) -> int:
        """The number of the network's parameters, frozen ones included."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def halvings(self) -> tuple[StepPosition, ...]:
        """The steps before which micro-batches were halved, because memory had run out."""
        return tuple(self._steps.halvings)

    @property
    def is_captured(self) -> bool:
        """True if the last step was taken with a captured gradient."""
        return self._steps.is_captured

    @property
    def capture_seconds(self) -> float:
        """Time of the training so far in which its steps were captured as CUDA graphs."""
        return self._steps.capture_seconds

    @property
    def finished(self) -> bool:
        """True after the last epoch of the schedule."""
        return self.step == len(self.plans)

    def reports(self) -> Iterator[EpochReport]:
        """Train from the current step to the end of the schedule; report after every epoch.

        Raises:
            DivergedError: a loss or a score is not finite.
        """
        device = self._numerics.device
        restart_peak_memory(device)
        while not self.finished:
            plan = self.plans[self.step]
            started = time.perf_counter()
            self._enter(plan)
            train_loss = self._train_epoch(plan)
            trained = time.perf_counter()
            self.step = plan.step
            self._average.finish_epoch()
            score = self._scorer.score(
                self.scored_model(),
                plan,
                recalibrated=is_recalibrated(self._recipe) and not self._stage.head_only,
                logits=self._head_logits if self._only_the_head_differs else None,
            )
            yield EpochReport(
                step=plan.step,
                epoch=plan.epoch,
                phase=plan.phase,
                rung=plan.rung,
                train_loss=train_loss,
                lr=learning_rate(plan, 1 - 0.5 / self.batches, self._recipe),
                seconds=time.perf_counter() - started,
                images_per_second=self.batches * self._batch_size / (trained - started),
                peak_memory_bytes=peak_memory_bytes(device),
                **asdict(score),
            )

    def rehearse(self, steps: int, *, stage: int = 0) -> None:
        """Take optimizer steps of the stage with this index, to time them.

        The training cannot be used afterwards; dropout draws from torch's global generator.
        """
        self._stage.enter(stage)
        self._stage.start_epoch(self._recipe.schedule.epochs)  # a typical epoch: whitening frozen
        self._average.start_epoch(frozen=self._stage.head_only)
        positions = torch.arange(self._batch_size).repeat(steps)
        batches = self._batches(positions, torch.ones_like(positions), step=0)
        for step in range(steps):
            self._take_step(next(batches), at=StepPosition(0, step))
            self._average.update(1)
        if self._numerics.device.startswith("cuda"):
            torch.cuda.synchronize(self._numerics.device)

    def scored_model(self) -> Classifier:
        """Return the network that the last report scored; it changes as training continues."""
        return self._average.model

    def log_probs(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return log-probabilities [n, K] of the scored network for these images of the set."""
        model = self.scored_model()
        if not self._only_the_head_differs:
            return predict_log_probs(model, self._images, self._numerics, indices=indices)
        logits = self._head_logits(PixelSource(self._images, indices, self._numerics))
        result: npt.NDArray[np.float32] = torch.log_softmax(logits.float(), dim=1).cpu().numpy()
        return result

    def save_weights(self, path: str | Path) -> None:
        """Write the weights of the scored network; see trainables/weights.py."""
        save_weights(self.scored_model(), path, seen=self._seen)

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint; see trainables/training/checkpoint.py."""
        self._state.save(folder, step=self.step, halvings=self.halvings)

    def load(self, folder: str | Path) -> None:
        """Resume from a checkpoint of the same recipe, rungs, seed and split.

        Epochs and rungs may differ in what is not trained yet: see
        trainables/training/identity.py.

        Raises:
            RunError: the checkpoint is damaged or belongs to another training.
        """
        self.step, halvings = self._state.load(folder, self.plans)
        self._steps.restore(halvings)
        self._only_the_head_differs = False

    def _head_logits(self, source: PixelSource) -> Tensor:
        return self._stage.head_logits(self.scored_model(), source)

    def _enter(self, plan: EpochPlan) -> None:
        """Restore or keep the trunk where a branch ends or begins; enter the epoch's stage."""
        if plan.restore:
            # The kept trunk has the optimizer of the stage before the branch.
            kept_in = stage_at(self._recipe.schedule.stages, plan.epoch - 1)
            self._state.restore_trunk(kept_in, keep=plan.keep)
        elif plan.keep:
            self._state.keep_trunk()
        self._stage.enter(plan.stage)

    def _train_epoch(self, plan: EpochPlan) -> float:
        """Train one epoch; return the mean loss. All random streams are named by plan.step."""
        device, seed = self._numerics.device, self._seed
        order, passes = self._order.epoch(plan.epoch, step=plan.step)
        total = torch.zeros((), device=device)
        self._stage.start_epoch(plan.epoch)
        self._only_the_head_differs = self._average.start_epoch(frozen=self._stage.head_only)
        ranks = () if self._parallel is None else (self._parallel.rank,)
        with global_torch_stream(seed, "dropout", plan.step, *ranks, device=device):
            batches = self._batches(order, passes, step=plan.step)
            for i in range(self.batches):
                steps = (plan.epoch - 1) * self.batches + i
                rate = learning_rate(plan, (i + 0.5) / self.batches, self._recipe)
                lookahead = lookahead_step_size(plan, (i + 1) / self.batches, self._recipe)
                set_progress(self._stage.optimizer, rate=rate, steps=steps, lookahead=lookahead)
                total += self._take_step(next(batches), at=StepPosition(plan.step - 1, i))
                # Reading a loss waits for the device, so on CUDA it is checked once per epoch.
                if device == "cpu" or i == self.batches - 1:
                    require_finite(float(total), "training loss", plan)
                self._average.update(steps + 1)
        return float(total) / self.batches

    def _batches(self, positions: Tensor, passes: Tensor, *, step: int) -> Iterator[Batch]:
        """Yield the batches of an epoch; `step` names its random stream.

        `positions` are those of the training images, and `passes` the numbers of the passes in
        which each is seen, int64 [steps × B].
        """
        augmentation = self._stage.recipe.augmentation
        flips = None  # drawn
        if augmentation.flip and augmentation.alternating_flip:
            flips = self._mirrored[positions] ^ (passes % 2 == 0)
        return self._stage.batches(
            positions,
            self._labels[positions.to(self._labels.device)],
            torch_generator(self._seed, "augment", step, device=self._numerics.device),
            flips=flips,
            size=self._batch_size,
        )

    def _take_step(self, batch: Batch, *, at: StepPosition) -> Tensor:
        """Take one optimizer step on a batch; return the loss. `at` names the step."""
        whole = len(batch.labels_a)
        if self._parallel is not None:
            batch = self._parallel.shard(batch)
        stage, share = self._stage, len(batch.labels_a) / whole
        return self._steps.take(batch, stage.optimizer, stage.recipe.optimizer, share=share, at=at)


def _loss_of(stage: ActiveStage, loss: TrainingLoss, batch: Batch) -> Tensor:
    """Return the mean loss of a batch.

    A function, because a method would make a reference cycle of Training and OptimizerStep, whose
    memory would be freed by the garbage collector only, long after the next trial has begun.
    """
    logits, auxiliary = stage.outputs(batch)
    return loss(logits, auxiliary, batch, smoothing=stage.recipe.loss.label_smoothing)


def _check(
    recipe: Recipe, images: ImageSet, batch_size: int, parallel: DataParallel | None
) -> None:
    """Refuse a batch too small for batch normalization, and an augmentation too large."""
    parts = recipe.optimizer.accumulation * (parallel.world_size if parallel else 1)
    if batch_size < SMALLEST * parts:
        raise SpecError(
            f"batch_size must be at least {SMALLEST} per process and micro-batch, for batch "
            f"normalization; got a batch of {batch_size} in {parts} parts"
        )
    for index in range(max(1, len(recipe.schedule.stages))):
        check_augmentation(recipe.in_stage(index).augmentation, images.image_size)


def _average_of(model: Classifier, recipe: Recipe) -> WeightAverage:
    schedule = recipe.schedule
    return WeightAverage(model, schedule.ema_decay, every=schedule.ema_every)


def _build(
    recipe: Recipe, images: ImageSet, splits: Splits, numerics: Numerics, seed: int
) -> Classifier:
    model = build_model(
        recipe,
        classes=len(images.class_names),
        image_size=images.image_size,
        train_images=images.images,
        train_indices=splits.train,
        seed=seed,
    )
    place_model(model, numerics)
    return model


def with_train_share(splits: Splits, share: float) -> Splits:
    """Return the splits with an evenly spaced share of the training images, at least two."""
    count = len(splits.train)
    kept = min(count, max(2, round(share * count)))
    return replace(splits, train=splits.train[evenly_spaced(count, kept)])
