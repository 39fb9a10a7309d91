"""Losses against soft targets, with and without a teacher.

Axes: B images of a batch, K classes. Targets and probabilities are rows that sum to 1;
every loss is the mean over the batch, in nats.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainables.errors import SpecError


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


def soft_targets(
    labels_a: Tensor, labels_b: Tensor, share: Tensor, *, classes: int, smoothing: float
) -> Tensor:
    """Targets float32 [B, K] of mixed images, smoothed.

    `labels_a` and `labels_b` are int64 [B]; `share` [B] in [0, 1] is what `labels_a` keeps.
    The probability mass `smoothing` is spread evenly over all K classes (Szegedy et al., 2016).
    """
    share = share.to(torch.float32)
    targets = torch.zeros(len(labels_a), classes, device=labels_a.device)
    targets.scatter_add_(1, labels_a[:, None], share[:, None])
    targets.scatter_add_(1, labels_b[:, None], 1 - share[:, None])
    return targets * (1 - smoothing) + smoothing / classes


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
