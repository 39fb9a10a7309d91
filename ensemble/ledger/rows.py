"""The rows of a ledger, a stage each: what it says of a split's examples, and what it costs.

Axes: N examples, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from common.errors import PoolError

STAGES = (
    "best_single",
    "uniform_top_k",
    "seeds_ensemble",
    "ensemble",
    "student_plain",
    "student_fp32",
    "student_int8",
)
"""In the order of the ledger."""

LogProbs = Float[np.ndarray, "N K"]
Labels = Int[np.ndarray, " N"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFacts:
    """What a stage costs; None where it was not measured."""

    params: int | None = None
    """Parameters, summed over an ensemble's members."""
    bytes: int | None = None
    """Size of its files."""
    latency_ms_batch1: float | None = None
    """Milliseconds of a call with one image."""
    images_per_second: float | None = None
    train_seconds: float | None = None
    """Training time, summed over an ensemble's members."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """Every stage's predictions on one split."""

    labels: Labels
    stages: Mapping[str, LogProbs]
    """By the stage's name, each after its own temperature."""

    def check(self) -> None:
        """See that they are of known stages, and fit the labels.

        Raises:
            PoolError: an unknown stage, another shape, or NaN.
        """
        for stage, log_probs in self.stages.items():
            if stage not in STAGES:
                raise PoolError(f"unknown stage {stage!r}; stages: {', '.join(STAGES)}")
            if log_probs.ndim != 2 or self.labels.shape != log_probs.shape[:1]:
                raise PoolError(
                    f"stage {stage!r}: expected log-probabilities "
                    f"[{len(self.labels)}, K], got shape {list(log_probs.shape)}"
                )
            if np.isnan(log_probs).any():
                raise PoolError(f"stage {stage!r}: log-probabilities must not be NaN")
