"""Choose one of the candidates by their losses out of fold.

Axes: N examples. The rule: find the candidate of the lowest mean NLL out of fold; every candidate
whose paired difference to it is at most one standard error of that difference, or 0.0001 nats, is
tied with it; of those, take the first in the order of preference.

The order of preference, first to last key:

1. Uniform weights before learned ones, which fit one number per member to holdout.
2. Raw pooling before calibrated pooling, which fits one temperature per member.
3. Ways by how much they choose on holdout: `seeds` (nothing), `top` (a ranking), `diverse` (a
   ranking and which ties to break), `greedy` and `bagged` (a search over sets).
4. Larger ensembles before smaller ones of the same kind: among averages that holdout cannot
   separate, the larger varies less on new data. `--members` bounds their cost.

So a more complex procedure is taken only if the simpler ones are measurably worse, and the price of
a wrong tie is about one standard error. The rule's error rates, also with the order of sizes
reversed, are measured in results/selection.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ensemble.selection.candidates import Candidate

Losses = Mapping[Candidate, Float[np.ndarray, " N"]]

ERRORS = 1.0
"""Standard errors of the paired difference to the lowest loss within which candidates tie."""


NEGLIGIBLE = 1e-4
"""Nats per example within which candidates tie, whatever the standard error. Fitting temperatures
to four digits, or twice, makes differences of this size, whose standard error is close to 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A candidate's score out of fold."""

    candidate: Candidate
    nll: float
    """In nats per example."""
    excess: float
    """Mean paired difference to the lowest NLL; 0 for the candidate that has it."""
    standard_error: float
    """Standard error of `excess`."""

    @property
    def tied(self) -> bool:
        """Not measurably worse than the best candidate."""
        return self.excess <= max(ERRORS * self.standard_error, NEGLIGIBLE)


def score_candidates(losses: Losses) -> tuple[Score, ...]:
    """Compare every candidate, in order of preference, with the one of the lowest mean loss."""
    best = min(losses.values(), key=lambda values: float(values.mean()))
    scores = []
    for candidate in sorted(losses, key=lambda candidate: candidate.place):
        excess, error = paired(losses[candidate], best)
        nll = float(losses[candidate].mean())
        scores.append(Score(candidate=candidate, nll=nll, excess=excess, standard_error=error))
    return tuple(scores)


def choose(scores: Sequence[Score]) -> Candidate:
    """Return the first candidate in the order of preference that is tied with the best."""
    return next(score.candidate for score in scores if score.tied)


def paired(a: Float[np.ndarray, " N"], b: Float[np.ndarray, " N"]) -> tuple[float, float]:
    """Return the mean of a − b and its standard error."""
    differences = a - b
    if len(differences) < 2:
        return float(differences.mean()), 0.0
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences)))
