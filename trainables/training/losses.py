"""The training loss: labels, an optional teacher, and auxiliary tasks.

Axes: N training images, B images of a batch, S×S pixels, K classes, G groups of classes.
Rows of probabilities sum to 1; rows of targets sum to the weight of their labels, which is 1
unless classes are weighted. Every loss is the mean over the batch, in nats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from common.errors import SpecError
from trainables.augmentation.batch import Batch
from trainables.hyperparameters import Loss
from trainables.nets.auxiliary_heads import (
    ROTATED_EVERY,
    AuxiliaryLogits,
    group_matrix,
    rotated_part,
)

Teacher = Callable[[Tensor], Tensor]
"""Maps augmented images, float [B, 3, S, S] in [0, 1], to log-probabilities [B, K]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """The weight of a teacher in a student's loss."""

    alpha: float
    """Weight of the teacher's loss; the labels' loss has weight 1 − alpha."""
    tau: float
    """Temperature at which teacher and student are compared."""

    def __post_init__(self) -> None:
        """Refuse weights outside [0, 1] and temperatures that are not positive."""
        if not 0 <= self.alpha <= 1:
            raise SpecError(f"alpha must lie in [0, 1], got {self.alpha!r}")
        if not self.tau > 0:
            raise SpecError(f"tau must be positive, got {self.tau!r}")


class TrainingLoss:
    """The loss of a recipe on its training images."""

    def __init__(
        self,
        settings: Loss,
        labels: Tensor,
        class_names: Sequence[str],
        *,
        teacher: Teacher | None = None,
        distillation: Distillation | None = None,
    ) -> None:
        """Prepare class weights and groups for the training labels, int64 [N], on their device.

        Raises:
            SpecError: only one of `teacher` and `distillation` is given, or a group names a class
                that the data do not have.
        """
        if (teacher is None) != (distillation is None):
            raise SpecError("teacher and distillation must be given together, got only one of them")
        self._settings, self._teacher, self._distillation = settings, teacher, distillation
        self._classes = len(class_names)
        self._weights = label_weights(labels, classes=self._classes, kind=settings.class_weights)
        self._groups: Tensor | None = None
        if settings.superclass_weight:
            self._groups = group_matrix(settings.superclasses, class_names).to(labels.device)

    def __call__(
        self, logits: Tensor, auxiliary: AuxiliaryLogits | None, batch: Batch, *, smoothing: float
    ) -> Tensor:
        """Return the mean loss of a batch, a scalar in nats.

        `logits` are [B, K]; `auxiliary` are the auxiliary heads' logits, None if not trained.
        """
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
                teacher = self._teacher(batch.images).to(logits.device)
            loss = distillation_loss(logits, targets, teacher, self._distillation)
        if auxiliary is None:
            return loss
        return loss + auxiliary_loss(
            auxiliary,
            self._settings,
            targets=targets,
            groups=self._groups,
            rotations=batch.rotations,
            first_rotated=batch.first_rotated,
        )


def label_weights(
    labels: Tensor, *, classes: int, kind: Literal["none", "balanced", "sqrt"]
) -> Tensor | None:
    """Return the weight of every class, float32 [K], from the training labels int64 [N].

    `balanced`: w_c ∝ 1/n_c, so that every class has the same share of the loss; `sqrt`:
    w_c ∝ 1/√n_c, a compromise; `none`: None. Weights are scaled so that their mean over the N
    images is 1, which keeps the scale of the loss. A class without images has weight 0.
    """
    if kind == "none":
        return None
    # Unlike bincount, which looks for the largest label, this does not wait for a GPU.
    counts = labels.new_zeros(classes).scatter_add_(0, labels, torch.ones_like(labels)).float()
    rarity = counts.clamp(min=1).pow(-1.0 if kind == "balanced" else -0.5)
    return torch.where(counts > 0, rarity * counts.sum() / (counts * rarity).sum(), 0.0)


def soft_targets(
    labels_a: Tensor,
    labels_b: Tensor,
    share: Tensor,
    *,
    classes: int,
    smoothing: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Return smoothed targets, float32 [B, K], of mixed images.

    `labels_a` and `labels_b` are int64 [B]; `share` [B] in [0, 1] is the share of `labels_a`.
    The probability mass `smoothing` is spread evenly over all K classes (Szegedy et al., 2016).

    With `weights` [K], a row is the sum of both labels' smoothed targets, each multiplied by its
    share and its class's weight, so that the loss of a mixed image is the mixture of both images'
    weighted losses. In distillation, the labels' loss is weighted and the teacher's is not.
    """
    share_a = share.to(torch.float32)
    share_b = 1 - share_a
    if weights is not None:
        share_a, share_b = share_a * weights[labels_a], share_b * weights[labels_b]
    targets = torch.zeros(len(labels_a), classes, device=labels_a.device)
    targets.scatter_add_(1, labels_a[:, None], share_a[:, None])
    targets.scatter_add_(1, labels_b[:, None], share_b[:, None])
    if weights is None:
        return targets * (1 - smoothing) + smoothing / classes
    return targets * (1 - smoothing) + (share_a + share_b)[:, None] * smoothing / classes


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of logits [B, K] against soft targets [B, K], in float32."""
    # functional.cross_entropy sums in another order: its gradients are bitwise the same, but
    # the loss differed in the last bit for 148 of 300 random batches, and records hold losses.
    return -(targets * functional.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()


def distillation_loss(
    logits: Tensor, targets: Tensor, teacher: Tensor, distillation: Distillation
) -> Tensor:
    """Return alpha·tau²·KL(teacher^(1/tau) ‖ student^(1/tau)) + (1 − alpha)·CE.

    `teacher` holds log-probabilities [B, K]; p^(1/tau) is renormalized. The factor tau² makes
    the size of the gradient independent of tau (Hinton et al., 2015).
    """
    alpha, tau = distillation.alpha, distillation.tau
    soft = functional.log_softmax(teacher.float() / tau, dim=1)
    student = functional.log_softmax(logits.float() / tau, dim=1)
    divergence = functional.kl_div(student, soft, reduction="batchmean", log_target=True)
    return alpha * tau**2 * divergence + (1 - alpha) * cross_entropy(logits, targets)


def auxiliary_loss(
    auxiliary: AuxiliaryLogits,
    settings: Loss,
    *,
    targets: Tensor,
    groups: Tensor | None,
    rotations: Tensor | None,
    first_rotated: int = 0,
) -> Tensor:
    """Return the weighted sum of the auxiliary tasks' losses, in nats.

    `targets` is float32 [B, K], as in the labels' loss: mixed images belong to both groups.
    `groups` is float32 [K, G + 1]; `rotations` is int64 [B], −1 where an image is not rotated, and
    `first_rotated` the first that is.
    """
    total = torch.zeros((), device=targets.device)
    if auxiliary.superclass is not None and groups is not None:
        loss = cross_entropy(auxiliary.superclass, targets @ groups)
        total = total + settings.superclass_weight * loss
    if auxiliary.rotation is not None and rotations is not None:
        summed = functional.cross_entropy(
            auxiliary.rotation.float(), rotated_part(rotations, first_rotated), reduction="sum"
        )
        # Not the mean over the rotated images: the losses of shards must add up to the batch's.
        total = total + settings.rotation_weight * summed * ROTATED_EVERY / len(rotations)
    return total
