"""The interface of the object that trains a trial, and its report after every epoch.

Axes: n images, K classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits
from trainables.recipe import Numerics, Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from trainables.feature_files import FeatureFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """The result of one epoch, as written to the journal's `epoch` event."""

    step: int
    """Epochs trained so far, cooldown branches included."""
    epoch: int
    """Epoch of the schedule that ended, from 1; equal to the rung at a rung's end."""
    phase: Literal["trunk", "cooldown"]
    rung: int | None
    """The rung that ends with this epoch, if any."""
    train_loss: float
    """Mean training loss, in nats."""
    val_nll: float
    """NLL on val in nats, after scaling with `temperature`."""
    val_accuracy: float
    temperature: float
    lr: float
    """Learning rate of the last optimizer step."""
    seconds: float
    """Wall time of the epoch, scoring included."""
    images_per_second: float
    """Training images per second of training, without scoring."""
    peak_memory_bytes: int
    """Peak memory in this training, of the process (CPU) or of torch's allocator (CUDA)."""


class FeatureCache:
    """Keeps computed features for the next trainings in this process.

    Trials of a sweep that train only the head of the same network have the same weights below it,
    and need the features of train and of val.
    """

    def __init__(self, *, most_bytes: int = 512 << 20, files: "FeatureFiles | None" = None) -> None:
        """Create an empty cache; the features used last may exceed `most_bytes` alone.

        `files` keep features for other processes, too.
        """
        self._most_bytes = most_bytes
        self._files = files
        self._features: dict[str, Tensor] = {}
        """Features by key, those used last at the end."""

    def get(self, key: str, compute: "Callable[[], Tensor]") -> "Tensor":
        """Return the features kept under `key`, or compute and keep them."""
        features = self._features.pop(key, None)
        if features is None:
            features = compute() if self._files is None else self._files.get(key, compute)
        self._features[key] = features
        while len(self._features) > 1 and self.bytes > self._most_bytes:
            del self._features[next(iter(self._features))]
        return features

    @property
    def bytes(self) -> int:
        """Size of all features."""
        return sum(each.numel() * each.element_size() for each in self._features.values())


class Trainer(Protocol):
    """A training that reports after every epoch and can be saved and resumed.

    `quorum.testing.trainers.TrainerContract` is a test suite for implementations.
    """

    @property
    def params(self) -> int:
        """The number of the network's parameters, frozen ones included."""

    def reports(self) -> Iterator[EpochReport]:
        """Train from the current step to the end of the schedule; report after every epoch.

        Raises:
            DivergedError: a loss or a score is not finite.
        """

    def log_probs(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return log-probabilities [n, K] of the network that the last report scored.

        `indices` are positions in the image set.
        """

    def save(self, folder: Path) -> None:
        """Write a checkpoint into `folder`."""

    def load(self, folder: Path) -> None:
        """Resume from a checkpoint of the same recipe, rungs, seed and split.

        If a schedule is shortened, the checkpoint is that of the longer one, before its last
        cooldown. A trainer that cannot continue from it raises, and the trial keeps the longer one.

        Raises:
            RunError: the checkpoint is damaged or belongs to another training.
        """

    def save_weights(self, path: Path) -> None:
        """Write the weights of the network that the last report scored, as safetensors."""


class TrainerFactory(Protocol):
    """Builds a trainer: a class or function that workers can import by name."""

    def __call__(
        self,
        recipe: Recipe,
        *,
        rungs: Sequence[int],
        seed: int,
        numerics: Numerics,
        images: ImageSet,
        splits: Splits,
        features: FeatureCache | None = None,
    ) -> Trainer:
        """Return a new trainer, before its first epoch.

        Raises:
            SpecError: the recipe does not suit these images or rungs.
        """
