"""The selected ensemble as typed values: everything that selection.json holds.

`selection.json` holds the fields of `Selection` in their order. It is written once, before
test is read.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from common.files import read_versioned
from common.statistics.metrics import apply_temperature
from ensemble.selection.candidates import Request
from ensemble.selection.certificate import Certificate
from ensemble.selection.comparison import Comparison
from ensemble.selection.mixture import Pooling
from ensemble.selection.pool import Skipped

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A member of an ensemble."""

    name: str
    weight: float
    temperature: float | None = None
    """Applied to the member before pooling; None if its probabilities are pooled as they are."""

    def as_pooled(self, log_probs: Float32[np.ndarray, "N K"]) -> Float32[np.ndarray, "N K"]:
        """Return the member's log-probabilities as they enter the pool."""
        if self.temperature is None:
            return log_probs
        return apply_temperature(log_probs, self.temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Cross-fitted scores on holdout; NLL in nats per example."""

    accuracy: float
    nll: float
    brier: float
    ece: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionMetrics:
    """The ensemble's scores by split."""

    holdout: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class BestSingle:
    """The best single member, with its cross-fitted scores."""

    name: str
    temperature: float
    accuracy: float
    nll: float
    brier: float
    ece: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A uniform ensemble of as many members as the selected one, with cross-fitted scores."""

    members: tuple[Member, ...]
    temperature: float
    accuracy: float
    nll: float
    brier: float
    ece: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateScore:
    """A candidate ensemble, scored out of fold."""

    name: str
    members: int
    nll: float
    excess: float
    """Mean paired difference to the candidate of the lowest NLL."""
    standard_error: float
    """Standard error of `excess`."""
    tied: bool
    """Within one standard error of the best, so that the order of preference decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BestAddition:
    """The pool member whose addition with a small weight would help the ensemble most."""

    name: str
    marginal_value: float
    """Nats per unit of weight; see `ensemble.selection.diversity.marginal_values`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """Measures of how the members differ; None for a single member."""

    disagreement: float | None
    """Mean over pairs."""
    double_fault: float | None
    """Mean over pairs."""
    kohavi_wolpert: float
    pooling_gain: float
    """Nats per example."""
    near_duplicates: tuple[tuple[str, str], ...]
    best_addition: BestAddition


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """A trial or an ensemble, what it would cost, and how good it is; see `front`."""

    name: str
    """A trial, or the ledger's row of an ensemble."""
    kind: Literal["trial", "ensemble"]
    nll: float
    """On holdout, in nats per example."""
    params: int | None
    gflops: float | None
    bytes: int | None
    latency_ms: float | None
    """Milliseconds for one image; like the size, None if not measured."""
    over: tuple[str, ...] = ()
    """The run's budgets that it breaks."""
    efficient: bool | None = None
    """On the front: no other point is at least as good in NLL, size and latency and better in one
    of them. None if size or latency is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The selected ensemble, its certificates, its baselines and the comparisons with them."""

    schema: int = SCHEMA
    split_id: str
    examples: int
    """Number of holdout examples."""
    classes: int
    pool_size: int
    most_members: int
    """The largest ensemble that was allowed."""
    members: tuple[Member, ...]
    """Sorted by falling weight; weights sum to 1."""
    temperature: float
    """Applied after pooling."""
    pooling: Pooling = "raw"
    """`calibrated`: every member is pooled at its own temperature."""
    pooling_reason: str = ""
    weighting: Literal["learned", "uniform"]
    weighting_reason: str
    source: Literal["search", "seeds", "all"]
    """Kinds of the members: searched trials, seeds of the best configuration, or both."""
    source_reason: str
    candidate: str = ""
    """The candidate that was chosen, by its name among `candidates`."""
    candidate_reason: str = ""
    candidates: tuple[CandidateScore, ...] = ()
    """All candidates in their order of preference; see `ensemble.selection.choice`."""
    request: Request | None = None
    """Ensembles that the user allowed; None in files of earlier versions."""
    gap_support: float
    """Bound for raw pooling before the temperature: no reweighting of the members gains more nats
    per example on holdout."""
    gap_pool: float
    """The same over the whole pool."""
    certificate: Certificate | None = None
    """Loss of the ensemble's weights; None in files of earlier versions."""
    predictions: dict[str, str] = field(default_factory=dict)
    """A digest of each member's predictions on holdout, by name."""
    order: tuple[str, ...]
    """Names in the order in which members were chosen, each once."""
    metrics: SelectionMetrics
    best_single: BestSingle
    uniform_top_k: Baseline
    seeds_ensemble: Baseline | None
    """None if the pool has fewer seeds than the ensemble has members."""
    comparisons: tuple[Comparison, ...]
    """The ensemble against each baseline, on the held-out folds."""
    diversity: Diversity
    compute: dict[str, float | None]
    """Training seconds behind each choice; None if a member's are unknown."""
    skipped: tuple[Skipped, ...]
    """Candidates that were left out of the pool."""
    front: tuple[FrontPoint, ...] = ()
    """Size, latency and NLL of the pool's networks and ensembles, by rising NLL; empty for a pool
    from a file, and in files of earlier versions."""

    def pooled_stages(self) -> dict[str, tuple[Member, ...]]:
        """Return the members of each of the ledger's stages that pools members, in its order."""
        stages = {
            "best_single": (Member(name=self.best_single.name, weight=1.0),),
            "uniform_top_k": self.uniform_top_k.members,
        }
        if self.seeds_ensemble is not None:
            stages["seeds_ensemble"] = self.seeds_ensemble.members
        return stages | {"ensemble": self.members}


def read_selection(path: Path) -> Selection:
    """Read selection.json.

    Raises:
        RunError: the file is missing, damaged or of another schema.
    """
    return read_versioned(Selection, path, schema=SCHEMA)
