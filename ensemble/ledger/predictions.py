"""The ledger's input: each stage's predictions on one split, and what the stage costs.

Axes: N examples, K classes. Predictions are log-probabilities [N, K].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from common.errors import PoolError

STAGES = (
    "best_single",
    "best_single_int8",
    "uniform_top_k",
    "seeds_ensemble",
    "ensemble",
    "soft_vote",
    "weighted_vote",
    "hard_vote",
    "student_plain",
    "student_plain_int8",
    "student_fp32",
    "student_int8",
)
"""In the ledger's order."""

Network = Literal["best_single", "student", "student_plain"]
Precision = Literal["fp32", "int8"]

FILES: Mapping[str, tuple[Network, Precision]] = {
    "best_single_int8": ("best_single", "int8"),
    "best_single": ("best_single", "fp32"),
    "student_int8": ("student", "int8"),
    "student_fp32": ("student", "fp32"),
    "student_plain_int8": ("student_plain", "int8"),
    "student_plain": ("student_plain", "fp32"),
}
"""The stages that are single files and so can be released, with their network and precision."""

LogProbs = Float[np.ndarray, "N K"]
Labels = Int[np.ndarray, " N"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """The size, speed and training time of a stage; None where it was not measured."""

    params: int | None = None
    """Parameters, summed over an ensemble's members."""
    bytes: int | None = None
    """Size of the stage's files."""
    latency_ms_batch1: float | None = None
    """Milliseconds of a call with one image."""
    images_per_second: float | None = None
    """Throughput in batches."""
    train_seconds: float | None = None
    """Training time, summed over an ensemble's members."""
    gflops: float | None = None
    """Floating-point operations of a call with one image, in billions: two for each multiplication
    with addition in convolutions and matrix products."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """The predictions of every stage on one split."""

    labels: Labels
    stages: Mapping[str, LogProbs]
    """Log-probabilities by stage, each after its own temperature."""

    def check(self) -> None:
        """Check that every stage is known and that its predictions fit the labels.

        Raises:
            PoolError: an unknown stage, a wrong shape, or NaN.
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
