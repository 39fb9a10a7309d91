"""Quantization-aware training: a short stage, run if quantizing after training costs too much.

The int8 file is compared with its fp32 file on val, by paired NLL. If it loses more than one
standard error, the network is trained further with rounded weights and activations
(trainables/training/fake_quantization.py), at a low learning rate that falls to zero, exported and
quantized again. The int8 file is replaced if the new one has a lower NLL on val; the fp32 file
stays.

Axes: N images of val, K classes.
"""

import logging
import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DivergedError
from common.files import write_bytes_atomically
from common.statistics.metrics import nll, nll_per_example
from ensemble.deployment.card import Card, read_card, write_card
from ensemble.deployment.export import export_onnx
from ensemble.deployment.onnx_model import predict
from ensemble.deployment.packaging import TrainedStudent, replace_int8
from ensemble.student.teacher import IdentifiedTeacher
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.nets.classifier import Classifier
from trainables.recipe import Numerics, Recipe
from trainables.training.fake_quantization import fake_quantized
from trainables.training.loop import Training
from trainables.training.losses import Distillation

log = logging.getLogger(__name__)

EPOCH_SHARES = (0.1, 0.25)
"""Length of the stage, as a share of the network's schedule: the usual share, and the largest, for
schedules of few steps."""

FEWEST_STEPS = 200
"""Optimizer steps that the stage should have. On digits, a network whose outlying channels cost
0.074 nats in int8 (0.092 → 0.166) reached 0.106 with 180 steps, and 0.264 with 60; one seed."""

RATE = 0.3
"""Peak learning rate of the stage, as a share of the recipe's; with a tenth, the network above
reached 0.216."""

RATES = ("lr_per_1024", "adamw_lr", "muon_lr", "muon_sgd_lr", "timm_lr")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationLoss:
    """NLL that an int8 file loses against its fp32 file, in nats per image."""

    value: float
    standard_error: float
    """Standard error of the mean paired difference."""

    @property
    def matters(self) -> bool:
        """True if the loss is more than one standard error."""
        return self.value > self.standard_error


def quantization_loss(folder: Path, images: ImageSet, splits: Splits) -> QuantizationLoss:
    """Return what the int8 file of a packaged network loses on val."""
    card = read_card(folder)
    assert card.int8 is not None
    val, labels = images.images[splits.val], images.labels[splits.val]
    losses = [
        nll_per_example(predict(folder / file, val), labels).astype(np.float64)
        for file in (card.int8.file, card.fp32.file)
    ]
    difference = losses[0] - losses[1]
    return QuantizationLoss(
        value=float(difference.mean()),
        standard_error=float(difference.std(ddof=1) / math.sqrt(len(difference))),
    )


def improve_int8(
    student: TrainedStudent,
    folder: Path,
    *,
    images: ImageSet,
    splits: Splits,
    numerics: Numerics,
    teacher: IdentifiedTeacher | None,
    distillation: Distillation | None,
    seconds: float = math.inf,
) -> Card:
    """Train a packaged network further for its int8 file if that loses more than one SE on val.

    Nothing is trained if the stage would take more than `seconds`, by the pace of the student's
    training. The card records the loss before and the epochs trained.
    """
    card = read_card(folder)
    if card.int8 is None or card.quantization is None:
        return card
    loss = quantization_loss(folder, images, splits)
    before = replace(
        card.quantization, val_loss=loss.value, val_loss_standard_error=loss.standard_error
    )
    card = replace(card, quantization=before)
    write_card(folder, card)
    epochs = stage_epochs(student.recipe, len(splits.train))
    expected = epochs * student.train_seconds / student.recipe.schedule.epochs
    if not loss.matters or expected > seconds:
        return card
    log.info(
        "int8 loses %.4f ± %.4f nats on val: %d epochs of quantization-aware training",
        loss.value,
        loss.standard_error,
        epochs,
    )
    try:
        tuned = train_quantized(
            student.recipe,
            student.model,
            epochs=epochs,
            reduce_range=before.reduce_range,
            images=images,
            splits=splits,
            seed=student.seed,
            numerics=numerics,
            teacher=teacher,
            distillation=distillation,
        )
    except DivergedError as error:
        log.warning("quantization-aware training diverged, and the int8 file is kept: %s", error)
        return card
    val, labels = images.images[splits.val], images.labels[splits.val]
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "tuned.onnx"
        export_onnx(tuned, source, image_size=images.image_size, classes=len(images.class_names))
        trial = Path(temporary) / "trial"
        improved = replace_int8(folder, source, to=trial, images=images, splits=splits)
        assert improved.int8 is not None
        assert improved.quantization is not None
        name = improved.int8.file
        scores = [nll(predict(place / name, val), labels) for place in (trial, folder)]
        if scores[0] >= scores[1]:
            log.info("quantization-aware training did not help on val: the int8 file is kept")
            return card
        write_bytes_atomically(folder / name, (trial / name).read_bytes())
    improved = replace(
        improved,
        quantization=replace(
            improved.quantization,
            aware_epochs=epochs,
            val_loss=loss.value,
            val_loss_standard_error=loss.standard_error,
        ),
    )
    write_card(folder, improved)
    return improved


def stage_epochs(recipe: Recipe, train_images: int) -> int:
    """Return the length of the stage for a network trained with this recipe, at least one epoch."""
    schedule = recipe.schedule
    images = schedule.passes * schedule.train_share * train_images
    steps = max(1, int(images / min(recipe.optimizer.batch_size, train_images)))
    usual, longest = (share * schedule.epochs for share in EPOCH_SHARES)
    return max(1, round(min(max(usual, FEWEST_STEPS / steps), longest)))


def train_quantized(
    recipe: Recipe,
    model: Classifier,
    *,
    epochs: int,
    reduce_range: bool,
    images: ImageSet,
    splits: Splits,
    seed: int,
    numerics: Numerics,
    teacher: IdentifiedTeacher | None = None,
    distillation: Distillation | None = None,
) -> Classifier:
    """Return the network after `epochs` with rounded weights and activations, in eval mode.

    `reduce_range` is that of the int8 file.
    """
    values: dict[str, Any] = {name: RATE * recipe.values()[name] for name in RATES}
    short = recipe.with_values(
        **values, epochs=epochs, stages=(), warmup_epochs=0.0, cooldown_fraction=1.0
    )
    training = Training(
        short,
        rungs=(epochs,),
        seed=seed,
        numerics=numerics,
        images=images,
        splits=splits,
        teacher=teacher,
        distillation=distillation,
    )
    training.start_from(model)
    with fake_quantized(training.model, reduce_range=reduce_range):
        for report in training.reports():
            log.info("val NLL %.4f after epoch %d, in float32", report.val_nll, report.step)
    return training.scored_model().eval()
