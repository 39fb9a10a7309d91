"""The ensemble as the student's teacher.

Axes: M members, B images of a batch, K classes. The teacher answers on the same view of each
image that the student sees, augmented and mixed (Beyer et al., 2022, "A good teacher is
patient and consistent"); stored predictions would belong to other views.
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from common.errors import PoolError
from ensemble.selection.selection import Member
from trainables.nets.tensor_file import tensors_to_bytes
from trainables.prediction import autocast, place_model
from trainables.recipe import Numerics
from trainables.records import RunFolder
from trainables.weights import load_trained

TEACHER_BATCH = 512
"""Most images that a member sees at a time."""


class IdentifiedTeacher(Protocol):
    """A teacher with an identity, so that a resumed distillation can refuse another one."""

    @property
    def identity(self) -> str:
        """A string that changes whenever the teacher's predictions do."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return log-probabilities [B, K] of float images [B, 3, S, S] in [0, 1]."""


def load_teacher(
    folder: RunFolder, members: Sequence[Member], temperature: float, numerics: Numerics
) -> "EnsembleTeacher":
    """Load trained members as a teacher, without their test-time augmentation.

    Test-time augmentation would double the teacher's cost or more. The student sees both
    mirror images anyway and learns what they have in common.

    Raises:
        RunError: a member's files are missing or damaged.
    """
    models = []
    for member in members:
        model = load_trained(folder.trial(member.name))
        model.tta = "none"
        models.append(model)
    return EnsembleTeacher(models, [member.weight for member in members], temperature, numerics)


class EnsembleTeacher:
    """Answer with the temperature-scaled mean of the members' probabilities."""

    def __init__(
        self,
        models: Sequence[nn.Module],
        weights: Sequence[float],
        temperature: float,
        numerics: Numerics,
        *,
        batch: int = TEACHER_BATCH,
    ) -> None:
        """Place the members on the numerics' device, in eval mode.

        Weights are scaled to sum to 1; members of weight 0 are left out.

        Raises:
            PoolError: the weights are not one per member, one is negative, none is positive, or
                the temperature is not positive.
        """
        _check(models, weights, temperature)
        positive = [(m, w) for m, w in zip(models, weights, strict=True) if w > 0]
        self._models = [place_model(model, numerics).eval() for model, _ in positive]
        shares = torch.tensor([w for _, w in positive], dtype=torch.float64)
        self._log_weights = (shares / shares.sum()).log().tolist()
        self._temperature = temperature
        self._numerics = numerics
        self._batch = batch

    @property
    def identity(self) -> str:
        """A digest of the members' parameters, their weights and the temperature."""
        digest = hashlib.sha256(repr((self._log_weights, self._temperature)).encode())
        for model in self._models:
            digest.update(tensors_to_bytes(model.state_dict()))
        return digest.hexdigest()[:16]

    def __call__(self, images: Tensor) -> Tensor:
        """Return log-probabilities [B, K] of float images [B, 3, S, S] in [0, 1].

        log p̄ = logsumexp_m(log w_m + log p_m), then log_softmax(log p̄ / T).
        """
        with torch.inference_mode(), autocast(self._numerics):
            pieces = [self._pool(part) for part in torch.split(images, self._batch)]
        # Concatenated outside: a tensor made in inference mode cannot take part in autograd.
        return torch.cat(pieces)

    def _pool(self, images: Tensor) -> Tensor:
        pooled: Tensor | None = None
        for model, log_weight in zip(self._models, self._log_weights, strict=True):
            member = torch.log_softmax(model(images).float(), dim=1) + log_weight
            pooled = member if pooled is None else torch.logaddexp(pooled, member)
        assert pooled is not None
        return torch.log_softmax(pooled / self._temperature, dim=1)


def _check(models: Sequence[nn.Module], weights: Sequence[float], temperature: float) -> None:
    if len(models) != len(weights) or not models:
        raise PoolError(
            f"a teacher needs one weight per member, got {len(models)} members and "
            f"{len(weights)} weights"
        )
    if min(weights) < 0 or not sum(weights) > 0:
        raise PoolError(
            f"weights must be at least 0, and one of them positive; got {list(weights)}"
        )
    if not temperature > 0:
        raise PoolError(f"a temperature must be positive, got {temperature}")
