"""Losses against soft targets, with and without a teacher.

Axes: N training images, B images of a batch, K classes. Probabilities are rows that sum to
1, targets are rows that sum to the weight of their labels, 1 unless classes are weighted;
every loss is the mean over the batch, in nats.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from common.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """How much a student listens to its teacher."""

    alpha: float
    """Weight of the teacher's loss; the labels have the rest."""
    tau: float
    """Temperature at which teacher and student are compared."""

    def __post_init__(self) -> None:
        """Refuse weights outside [0, 1] and temperatures that are not positive."""
        if not 0 <= self.alpha <= 1:
            raise SpecError(f"alpha must lie in [0, 1], got {self.alpha!r}")
        if not self.tau > 0:
            raise SpecError(f"tau must be positive, got {self.tau!r}")


def label_weights(
    labels: Tensor, *, classes: int, kind: Literal["none", "balanced", "sqrt"]
) -> Tensor | None:
    """The weight of every class, float32 [K], from the training labels int64 [N]; or None.

    `balanced`: w_c ∝ 1/n_c, so that every class has the same share of the loss; `sqrt`:
    w_c ∝ 1/√n_c, halfway there. Scaled so that the mean over the N images is 1, which
    leaves the learning rate its meaning. A class without images has the weight 0.
    """
    if kind == "none":
        return None
    counts = torch.bincount(labels, minlength=classes).to(torch.float32)
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
    """Targets float32 [B, K] of mixed images, smoothed.

    `labels_a` and `labels_b` are int64 [B]; `share` [B] in [0, 1] is what `labels_a` keeps.
    The probability mass `smoothing` is spread evenly over all K classes (Szegedy et al., 2016).

    With `weights` [K], a row is the sum of both labels' smoothed targets, each times its
    share and its class's weight: the loss of a mixed image is what both images' weighted
    losses would be mixed to, as MixUp without weights has it. In distillation the labels'
    part of the loss is weighted and the teacher's is not: its probabilities say what they
    say for every image.
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
    """Cross entropy of logits [B, K] against soft targets [B, K], a scalar in float32."""
    return -(targets * functional.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()


def distillation_loss(
    logits: Tensor, targets: Tensor, teacher: Tensor, distillation: Distillation
) -> Tensor:
    """alpha·tau²·KL(teacher^(1/tau) ‖ student^(1/tau)) + (1 − alpha)·CE (Hinton et al., 2015).

    `teacher` holds log-probabilities [B, K]; p^(1/tau) is renormalized. The factor tau²
    keeps the gradient's size independent of tau.
    """
    alpha, tau = distillation.alpha, distillation.tau
    taught = functional.log_softmax(teacher.float() / tau, dim=1)
    student = functional.log_softmax(logits.float() / tau, dim=1)
    divergence = functional.kl_div(student, taught, reduction="batchmean", log_target=True)
    return alpha * tau**2 * divergence + (1 - alpha) * cross_entropy(logits, targets)
