"""Predictions of networks that were never trained.

Axes: N examples, K classes. All networks share each example's difficulty, so their errors are
correlated, as those of trained networks are.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from common.statistics.metrics import apply_temperature, fit_temperature

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The size of a run and its finished stages."""

    classes: int = 10
    train: int = 400
    val: int = 400
    holdout: int = 400
    test: int = 597
    trials: int = 24
    seeds: bool = True
    selected: bool = True
    distilled: bool = True
    ledger: bool = True
    int8_fails: bool = False
    test_reads: int = 1

    @property
    def sizes(self) -> dict[str, int]:
        """Examples by split."""
        return {split: getattr(self, split) for split in ("train", "val", "holdout", "test")}


SMALL = Shape(classes=4, val=60, holdout=200, test=120, trials=12)
"""Enough for most tests."""


class Nets:
    """The labels of every split, and networks that predict them with a given skill."""

    def __init__(self, shape: Shape, rng: np.random.Generator) -> None:
        self.shape, self.rng = shape, rng
        self.labels = {
            split: rng.integers(0, shape.classes, shape.sizes[split])
            for split in ("val", "holdout", "test")
        }
        self.shared = {
            split: rng.standard_normal((len(labels), shape.classes))
            for split, labels in self.labels.items()
        }
        # Some pairs of classes look alike.
        self.twin = (np.arange(shape.classes) + 1 + (np.arange(shape.classes) % 3)) % shape.classes

    def logits(self, split: str, *, skill: float, own_noise: float = 0.6) -> Array:
        """Return logits [N, K] of a network whose margin for the true class is `skill`."""
        labels = self.labels[split]
        rows = np.arange(len(labels))
        shared = self.shared[split]
        logits = shared + own_noise * self.rng.standard_normal(shared.shape)
        logits[rows, labels] += skill
        logits[rows, self.twin[labels]] += 0.25 * skill
        return 1.6 * logits

    def pool(self, split: str, count: int, *, skill: float, own_noise: float = 0.6) -> Array:
        """Return log-probabilities [M, N, K] of `count` networks of equal skill."""
        return np.stack(
            [
                log_softmax(self.logits(split, skill=skill, own_noise=own_noise))
                for _ in range(count)
            ]
        )

    def quantized(self, fp32: Array) -> Array:
        """Return an fp32 student's logits with the noise of quantization."""
        noise = 1.3 if self.shape.int8_fails else 0.15
        return fp32 + noise * self.rng.standard_normal(fp32.shape)

    def calibrated(self, split: str, logits: Array) -> Array:
        """Return log-probabilities after a temperature fitted on the same examples."""
        log_probs = log_softmax(logits)
        return apply_temperature(log_probs, fit_temperature(log_probs, self.labels[split]))


def mean_probability(log_probs: Array) -> Array:
    """Average log-probabilities [M, N, K] as probabilities, over the members."""
    mean: Array = np.log(np.mean(np.exp(log_probs), axis=0))
    return mean


def log_softmax(logits: Array) -> Array:
    """Return float32 log-probabilities."""
    shifted = logits - logits.max(1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return np.asarray(log_probs, np.float32)
