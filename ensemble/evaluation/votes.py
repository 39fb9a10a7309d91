"""Votes of the ensemble's members, for the ledger: hard, soft and weighted.

Axes: M members, N examples, K classes. The selected ensemble is one of many ways to pool its
members. These rows show the others, with the same members at the same temperatures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int64

from ensemble.deployment.onnx_model import LogProbs
from ensemble.selection.selection import Member, Selection
from ensemble.selection.voting import vote_error_rate, voting_log_probs
from ensemble.selection.weights import simplex_weights

VOTES = ("soft_vote", "weighted_vote", "hard_vote")
"""The ledger's stages that are votes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """The ways to pool an ensemble's members, fitted on holdout."""

    members: tuple[Member, ...]
    """The ensemble's members; a single member casts no votes."""
    learned: tuple[float, ...]
    """Weights of the lowest NLL on holdout, one per member; they sum to 1."""
    error_rate: float
    """Smoothing of hard votes; see `ensemble.selection.voting`."""

    @classmethod
    def fit(
        cls,
        selection: Selection,
        holdout: Mapping[str, LogProbs],
        labels: Int64[np.ndarray, " N"],
    ) -> "Votes":
        """Fit the learned weights and the smoothing to the members' predictions on holdout."""
        members = selection.members
        if len(members) < 2:
            return cls(members=members, learned=(1.0,) * len(members), error_rate=0.5)
        stack = _stack(members, holdout)
        learned = tuple(member.weight for member in members)
        if selection.weighting == "uniform":
            true = np.exp(stack[:, np.arange(len(labels)), labels].T.astype(np.float64))
            learned = tuple(simplex_weights(true).tolist())
        equal = np.full(len(members), 1.0 / len(members))
        rate = vote_error_rate(stack, equal, labels)
        return cls(members=members, learned=learned, error_rate=rate)

    def stages(self) -> dict[str, tuple[Member, ...]]:
        """Return the members of each of the ledger's stages, with their weights."""
        if len(self.members) < 2:
            return {}
        count = len(self.members)
        equal = tuple(replace(member, weight=1.0 / count) for member in self.members)
        learned = tuple(
            replace(member, weight=weight)
            for member, weight in zip(self.members, self.learned, strict=True)
            if weight > 0
        )
        return {"soft_vote": equal, "weighted_vote": learned, "hard_vote": equal}

    def log_probs(self, predictions: Mapping[str, LogProbs]) -> dict[str, LogProbs]:
        """Return log-probabilities [N, K] by stage, from the members' predictions by name."""
        if len(self.members) < 2:
            return {}
        stack = _stack(self.members, predictions)
        equal = np.full(len(self.members), 1.0 / len(self.members))
        votes = voting_log_probs(stack, equal, error_rate=self.error_rate)
        learned = np.asarray(self.learned)
        weighted = voting_log_probs(stack, learned / learned.sum(), error_rate=self.error_rate)
        return {**votes, "weighted_vote": weighted["weighted_vote"]}


def _stack(
    members: Sequence[Member], predictions: Mapping[str, LogProbs]
) -> Float[np.ndarray, "M N K"]:
    return np.stack([member.as_pooled(predictions[member.name]) for member in members])
