"""The ensemble as the student's teacher.

Axes: M members, B images of a batch, K classes. The teacher predicts on the same view of each image
that the student sees, augmented and mixed (Beyer et al., 2022, "A good teacher is patient and
consistent"); stored predictions would belong to other views.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from common.errors import PoolError
from common.files import dump_json, read_json, write_bytes_atomically
from common.parsing import from_mapping, to_mapping
from common.statistics.metrics import apply_temperature, fit_temperature
from ensemble.selection.selection import Member
from ensemble.selection.voting import weighted_vote
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.nets.tensor_file import tensors_to_bytes
from trainables.prediction import autocast, place_model, predict_log_probs
from trainables.recipe import Numerics
from trainables.records import RunFolder
from trainables.weights import load_trained

TEACHER_BATCH = 512
"""Largest number of images that a member sees at a time."""


class IdentifiedTeacher(Protocol):
    """A teacher with an identity, so that a resumed distillation can refuse another one."""

    @property
    def identity(self) -> str:
        """A string that changes whenever the teacher's predictions do."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return log-probabilities [B, K] of float images [B, 3, S, S] in [0, 1]."""


def load_teacher(
    folder: RunFolder,
    members: Sequence[Member],
    temperature: float,
    numerics: Numerics,
    *,
    images: ImageSet,
    splits: Splits,
    saved: Path,
) -> "EnsembleTeacher":
    """Load trained members as a teacher, without their test-time augmentation.

    Test-time augmentation would double the teacher's cost or more. The student sees both
    mirror images anyway and learns what they have in common. Averaging views makes predictions
    less confident, so temperatures that were fitted with views do not suit a teacher without
    them: where a member has views, all temperatures are fitted again on holdout. They are kept in
    the file `saved`, so that a resumed distillation has the same teacher.

    Raises:
        RunError: a member's files are missing or damaged.
    """
    models = [load_trained(folder.trial(member.name)) for member in members]
    temperatures = Temperatures(
        pooled=temperature, members=tuple(member.temperature or 1.0 for member in members)
    )
    views = any(model.tta != "none" for model in models)
    for model in models:
        model.tta = "none"
    if views and saved.is_file():
        temperatures = from_mapping(Temperatures, read_json(saved), where=str(saved))
    elif views:
        labels = images.labels[splits.holdout]
        temperatures = _temperatures(
            members,
            [
                predict_log_probs(model, images.images, numerics, indices=splits.holdout)
                for model in models
            ],
            labels,
        )
        write_bytes_atomically(saved, dump_json(to_mapping(temperatures)).encode())
    return EnsembleTeacher(
        models,
        [member.weight for member in members],
        temperatures.pooled,
        numerics,
        member_temperatures=temperatures.members,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperatures:
    """Temperatures of a teacher, as teacher.json holds them."""

    pooled: float
    """Applied after pooling."""
    members: tuple[float, ...]
    """Applied before pooling; 1 if members are pooled as they are."""


def _temperatures(
    members: Sequence[Member],
    log_probs: Sequence[Float32[np.ndarray, "N K"]],
    labels: Int64[np.ndarray, " N"],
) -> Temperatures:
    """Fit the temperatures of a pool to its members' predictions."""
    own = [
        1.0 if member.temperature is None else fit_temperature(each, labels)
        for member, each in zip(members, log_probs, strict=True)
    ]
    stack = np.stack([apply_temperature(x, t) for x, t in zip(log_probs, own, strict=True)])
    weights = np.asarray([member.weight for member in members])
    pooled = weighted_vote(stack, weights / weights.sum())
    return Temperatures(pooled=fit_temperature(pooled, labels), members=tuple(own))


class EnsembleTeacher:
    """Answer with the temperature-scaled mean of the members' probabilities."""

    def __init__(
        self,
        models: Sequence[nn.Module],
        weights: Sequence[float],
        temperature: float,
        numerics: Numerics,
        *,
        member_temperatures: Sequence[float] | None = None,
        batch: int = TEACHER_BATCH,
    ) -> None:
        """Place the members on the numerics' device, in eval mode.

        Weights are scaled to sum to 1; members of weight 0 are left out. `member_temperatures`
        are applied before pooling; all are 1 by default.

        Raises:
            PoolError: weights or temperatures are not one per member, a weight is negative, none is
                positive, or a temperature is not positive.
        """
        own = [1.0] * len(models) if member_temperatures is None else list(member_temperatures)
        _check(models, weights, [temperature, *own])
        positive = [part for part in zip(models, weights, own, strict=True) if part[1] > 0]
        self._models = [place_model(model, numerics).eval() for model, _, _ in positive]
        shares = torch.tensor([w for _, w, _ in positive], dtype=torch.float64)
        self._log_weights = (shares / shares.sum()).log().tolist()
        self._own_temperatures = [own for _, _, own in positive]
        self._temperature = temperature
        self._numerics = numerics
        self._batch = batch

    @property
    def temperature(self) -> float:
        """The temperature that is applied after pooling."""
        return self._temperature

    @property
    def member_temperatures(self) -> tuple[float, ...]:
        """The temperatures before pooling, of the members with a positive weight."""
        return tuple(self._own_temperatures)

    @property
    def identity(self) -> str:
        """A digest of the members' parameters, their weights and the temperatures."""
        settings: tuple[object, ...] = (self._log_weights, self._temperature)
        # A teacher that pools raw keeps the identity that distillations of earlier versions saved.
        if set(self._own_temperatures) != {1.0}:
            settings += (self._own_temperatures,)
        digest = hashlib.sha256(repr(settings).encode())
        for model in self._models:
            digest.update(tensors_to_bytes(model.state_dict()))
        return digest.hexdigest()[:16]

    def __call__(self, images: Tensor) -> Tensor:
        """Return log-probabilities [B, K] of float images [B, 3, S, S] in [0, 1].

        log p̄ = logsumexp_m(log w_m + log_softmax(logits_m / T_m)), then log_softmax(log p̄ / T).
        """
        with torch.inference_mode(), autocast(self._numerics):
            pieces = [self._pool(part) for part in torch.split(images, self._batch)]
        # Concatenated outside: a tensor made in inference mode cannot take part in autograd.
        return torch.cat(pieces)

    def _pool(self, images: Tensor) -> Tensor:
        pooled: Tensor | None = None
        for model, log_weight, own in zip(
            self._models, self._log_weights, self._own_temperatures, strict=True
        ):
            member = torch.log_softmax(model(images).float() / own, dim=1) + log_weight
            pooled = member if pooled is None else torch.logaddexp(pooled, member)
        assert pooled is not None
        return torch.log_softmax(pooled / self._temperature, dim=1)


def _check(
    models: Sequence[nn.Module], weights: Sequence[float], temperatures: Sequence[float]
) -> None:
    if len(models) != len(weights) or not models:
        raise PoolError(
            f"a teacher needs one weight per member, got {len(models)} members and "
            f"{len(weights)} weights"
        )
    if len(temperatures) != len(models) + 1:
        raise PoolError(
            f"a teacher needs one temperature per member, got {len(models)} members and "
            f"{len(temperatures) - 1} temperatures"
        )
    if min(weights) < 0 or not sum(weights) > 0:
        raise PoolError(
            f"weights must be at least 0, and one of them positive; got {list(weights)}"
        )
    for temperature in temperatures:
        if not temperature > 0:
            raise PoolError(f"a temperature must be positive, got {temperature}")
