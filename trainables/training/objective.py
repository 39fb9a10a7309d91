"""What a training minimizes: the labels' loss, or a teacher's beside it, and further tasks'.

Axes: N training images, B images of a batch, S×S pixels, K classes.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.errors import SpecError
from trainables.augmentation.batch import Batch
from trainables.nets.auxiliary_heads import Answers, auxiliary_loss, group_matrix
from trainables.recipe import Recipe
from trainables.training.losses import (
    Distillation,
    cross_entropy,
    distillation_loss,
    label_weights,
    soft_targets,
)

Teacher = Callable[[Tensor], Tensor]
"""Augmented images, float [B, 3, S, S] in [0, 1], to log-probabilities [B, K]."""


class Objective:
    """The loss of a recipe on certain training images."""

    def __init__(
        self,
        recipe: Recipe,
        labels: Tensor,
        class_names: Sequence[str],
        *,
        teacher: Teacher | None,
        distillation: Distillation | None,
    ) -> None:
        """`labels` are the training images', int64 [N], on the training device.

        Raises:
            SpecError: a teacher without a distillation or the other way round, or groups of
                classes that the data have not.
        """
        if (teacher is None) != (distillation is None):
            raise SpecError("teacher and distillation come together or not at all")
        self._recipe, self._teacher, self._distillation = recipe, teacher, distillation
        self._classes = len(class_names)
        self._weights = label_weights(labels, classes=self._classes, kind=recipe.loss.class_weights)
        self._groups: Tensor | None = None
        if recipe.loss.superclass_weight:
            self._groups = group_matrix(recipe.loss.superclasses, class_names).to(labels.device)

    def loss(
        self, logits: Tensor, answers: Answers | None, batch: Batch, *, smoothing: float
    ) -> Tensor:
        """The mean over a batch, in nats: a scalar; `logits` are [B, K]."""
        targets = soft_targets(
            batch.labels_a,
            batch.labels_b,
            batch.share,
            classes=self._classes,
            smoothing=smoothing,
            weights=self._weights,
        )
        if self._teacher is None or self._distillation is None:
            loss = cross_entropy(logits, targets)
        else:
            with torch.no_grad():
                taught = self._teacher(batch.images).to(logits.device)
            loss = distillation_loss(logits, targets, taught, self._distillation)
        if answers is None:
            return loss
        return loss + auxiliary_loss(
            answers, self._recipe.loss, targets=targets, groups=self._groups, turns=batch.turns
        )
