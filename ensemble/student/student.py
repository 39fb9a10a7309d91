"""Train the student: from a live teacher, or without one for comparison.

Axes: M members, B images of a batch, K classes. The teacher answers on the very view that
the student sees, mixed and shifted as it is (Beyer et al., 2022, "A good teacher is patient
and consistent"); answers stored once would be answers to other images.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from common.errors import PoolError, RunError
from common.files import dump_json, read_json, write_bytes_atomically
from common.parsing import from_mapping, to_mapping
from trainables.data.sources import ImageSet
from trainables.data.splits import Splits
from trainables.nets.build import Classifier
from trainables.prediction import autocast, place_model
from trainables.recipe import Numerics, Recipe
from trainables.training.checkpoint import tensors_to_bytes
from trainables.training.data_parallel import Replica
from trainables.training.loop import EpochReport, Training
from trainables.training.losses import Distillation

TEACHER_BATCH = 512
"""Most images a teacher's member sees at a time."""

HISTORY = "history.json"
"""The reports and the teacher's identity, beside the checkpoint."""


class NamedTeacher(Protocol):
    """A teacher that can be told from another one."""

    @property
    def identity(self) -> str:
        """The same for the same answers only; a resumed distillation compares it."""

    def __call__(self, images: Tensor) -> Tensor:
        """Log-probabilities [B, K] of float images [B, 3, S, S] in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudentResult:
    """A trained student."""

    model: Classifier
    """The net that was scored last, in eval mode."""
    seconds: float
    """Of training and scoring, over all sessions of a resumed training."""
    steps: int
    """Optimizer steps."""
    params: int
    reports: tuple[EpochReport, ...]
    """One for every epoch."""


def distil(
    recipe: Recipe,
    *,
    images: ImageSet,
    splits: Splits,
    seed: int,
    numerics: Numerics,
    teacher: NamedTeacher | None = None,
    distillation: Distillation | None = None,
    on_report: Callable[[EpochReport], None] | None = None,
    folder: Path | None = None,
    replica: Replica | None = None,
) -> StudentResult:
    """Train the student of `recipe` on train, with a teacher or, for `student_plain`, without.

    With and without a teacher, the net, its start, the views of the images and the number
    of optimizer steps are the same. With a `folder`, every epoch is saved there, and a
    training found there is continued: killed at any time, it ends where it would have
    ended. `on_report` sees each new epoch. With a `replica`, this is one of several processes
    that share every batch; all need the same arguments, and rank 0 alone writes.

    Raises:
        SpecError: a recipe that these images do not allow, or a teacher without distillation.
        RunError: the folder holds another training, or one by another teacher.
        DivergedError: a loss that is not finite.
    """
    training = Training(
        recipe,
        rungs=(recipe.schedule.epochs,),
        seed=seed,
        numerics=numerics,
        images=images,
        splits=splits,
        teacher=teacher,
        distillation=distillation,
        replica=replica,
    )
    history = _History(folder, teacher, writes=replica is None or replica.rank == 0)
    history.resume(training)
    for report in training.reports():
        history.add(report, training)
        if on_report is not None:
            on_report(report)
    batch = min(recipe.optimizer.batch_size, len(splits.train))
    return StudentResult(
        model=training.scored_model(),
        seconds=sum(report.seconds for report in history.reports),
        steps=training.step * (len(splits.train) // batch),
        params=training.params,
        reports=tuple(history.reports),
    )


def read_reports(folder: Path) -> list[EpochReport]:
    """The reports saved in a distillation's folder so far; none before the first epoch."""
    path = folder / HISTORY
    if not path.exists():
        return []
    saved = read_json(path)["reports"]
    return [from_mapping(EpochReport, item, where=str(path)) for item in saved]


class PooledTeacher:
    """The ensemble as one teacher: the temperature-scaled mean of its members' probabilities."""

    def __init__(
        self,
        models: Sequence[nn.Module],
        weights: Sequence[float],
        temperature: float,
        numerics: Numerics,
        *,
        batch: int = TEACHER_BATCH,
    ) -> None:
        """Place the members on the numerics' device, in eval mode; weights are scaled to sum 1.

        Members of weight 0 are left out.

        Raises:
            PoolError: no weight per member, a negative one, none positive, or a temperature
                that is not positive.
        """
        _check(models, weights, temperature)
        kept = [(m, w) for m, w in zip(models, weights, strict=True) if w > 0]
        self._models = [place_model(model, numerics).eval() for model, _ in kept]
        shares = torch.tensor([w for _, w in kept], dtype=torch.float64)
        self._log_weights = (shares / shares.sum()).log().tolist()
        self._temperature = temperature
        self._numerics = numerics
        self._batch = batch

    @property
    def identity(self) -> str:
        """A digest of the members' weights, their shares and the temperature."""
        digest = hashlib.sha256(repr((self._log_weights, self._temperature)).encode())
        for model in self._models:
            digest.update(tensors_to_bytes(model.state_dict()))
        return digest.hexdigest()[:16]

    def __call__(self, images: Tensor) -> Tensor:
        """Log-probabilities [B, K] of float images [B, 3, S, S] in [0, 1].

        log p̄ = logsumexp_m(log w_m + log p_m), then log_softmax(log p̄ / T).
        """
        with torch.inference_mode(), autocast(self._numerics):
            pieces = [self._pool(part) for part in torch.split(images, self._batch)]
        # Joined outside: a tensor made in inference mode must not meet autograd.
        return torch.cat(pieces)

    def _pool(self, images: Tensor) -> Tensor:
        pooled: Tensor | None = None
        for model, log_weight in zip(self._models, self._log_weights, strict=True):
            member = torch.log_softmax(model(images).float(), dim=1) + log_weight
            pooled = member if pooled is None else torch.logaddexp(pooled, member)
        assert pooled is not None
        return torch.log_softmax(pooled / self._temperature, dim=1)


class _History:
    """The reports of a training and its checkpoint, in a folder; or in memory alone."""

    def __init__(self, folder: Path | None, teacher: NamedTeacher | None, *, writes: bool) -> None:
        self.reports: list[EpochReport] = []
        self._folder, self._writes = folder, writes
        self._teacher = teacher.identity if teacher is not None else None

    def resume(self, training: Training) -> None:
        """Load the checkpoint, if there is one, and the reports up to it."""
        if self._folder is None or not (self._folder / "checkpoint").is_dir():
            return
        history = read_json(self._folder / HISTORY)
        if history.get("teacher") != self._teacher:
            raise RunError(
                f"{self._folder} holds a student of another teacher ({history.get('teacher')}, "
                f"this one is {self._teacher}); remove the folder to begin anew"
            )
        training.load(self._folder / "checkpoint")
        self.reports = read_reports(self._folder)[: training.step]

    def add(self, report: EpochReport, training: Training) -> None:
        """Keep a report; the checkpoint comes last, so no report before it can be missing."""
        self.reports.append(report)
        if self._folder is None or not self._writes:
            return
        content: dict[str, Any] = {"teacher": self._teacher, "reports": to_mapping(self.reports)}
        write_bytes_atomically(self._folder / HISTORY, dump_json(content).encode())
        training.save(self._folder / "checkpoint")


def _check(models: Sequence[nn.Module], weights: Sequence[float], temperature: float) -> None:
    if len(models) != len(weights) or not models:
        raise PoolError(
            f"a teacher needs one weight per member, got {len(models)} members and "
            f"{len(weights)} weights"
        )
    if min(weights) < 0 or not sum(weights) > 0:
        raise PoolError(f"weights must be at least 0, one of them positive; got {list(weights)}")
    if not temperature > 0:
        raise PoolError(f"a temperature must be positive, got {temperature}")
