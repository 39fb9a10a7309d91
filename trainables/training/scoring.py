"""Score a network on val: batch normalization recalibrated, one temperature fitted.

The scored network is the moving average of the weights, not the weights themselves. If it was
trained from scratch, its batch normalization is recalibrated on a fixed, unaugmented part of
train, so that the score does not depend on how far the running statistics have converged.
"""

import math
from dataclasses import dataclass

import torch

from common.errors import DivergedError
from common.sampling import evenly_spaced
from common.statistics.metrics import accuracy, apply_temperature, fit_temperature, nll
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.nets.classifier import Classifier
from trainables.prediction import PixelSource, log_probs_of
from trainables.recipe import Numerics
from trainables.training.recalibration import recalibrate
from trainables.training.schedule import EpochPlan

RECALIBRATION_IMAGES = 2048
"""Largest number of training images used to recalibrate batch normalization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A network's score on val."""

    val_nll: float
    """In nats, after the temperature."""
    val_accuracy: float
    temperature: float


class Scorer:
    """Scores networks on the val split of an image set."""

    def __init__(
        self, train: PixelSource, images: ImageSet, splits: Splits, numerics: Numerics
    ) -> None:
        """`train` holds the training images."""
        self._train = train
        self._val = PixelSource(images.images, splits.val, numerics)
        self._labels = images.labels[splits.val]
        self._sample = torch.from_numpy(evenly_spaced(len(splits.train), RECALIBRATION_IMAGES))
        self._numerics = numerics

    def score(self, model: Classifier, plan: EpochPlan, *, recalibrated: bool) -> Score:
        """Score a network after the epoch `plan`; it is left in eval mode.

        Without `recalibrated`, batch normalization keeps its statistics.

        Raises:
            DivergedError: a log-probability is not finite.
        """
        model.eval()
        if recalibrated:
            recalibrate(model, self._train, self._sample, self._numerics)
        logp = log_probs_of(model, self._val, self._numerics)
        require_finite(float(logp.min()), "score on val", plan)
        temperature = fit_temperature(logp, self._labels)
        return Score(
            val_nll=nll(apply_temperature(logp, temperature), self._labels),
            val_accuracy=accuracy(logp, self._labels),
            temperature=temperature,
        )


def require_finite(value: float, name: str, plan: EpochPlan) -> None:
    """Raise a DivergedError with the value's name and epoch unless it is finite."""
    if not math.isfinite(value):
        raise DivergedError(
            f"the {name} became {value} in epoch {plan.epoch} (step {plan.step}); "
            f"lower the learning rate or lengthen the warm-up"
        )
