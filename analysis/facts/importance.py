"""Importance of the searched values for the score, with bootstrap intervals.

Axes: T trials, P searched values, D bootstrap draws, F columns of the encoded values.

An extra-trees forest (Geurts et al., 2006) predicts the trials' ranks from their searched values.
The importance of a value is the loss in accuracy on unseen trials when that value is shuffled among
them (Breiman, 2001). This is repeated on D bootstrap samples of the trials, each scored on the
trials left out; the spread of the results is the interval. Trials are compared at the lowest rung,
the only one that all reach with the same budget: the scheduler selects who goes further.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from analysis.facts.trials import TrialFacts
from common.formats import value_text
from search.space.parameters import Parameter
from search.space.space import Space

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]

DRAWS = 100
"""Bootstrap samples of trials: 30 ms each for 30 trials and 13 values."""
TREES = 25
SHUFFLES = 4
"""Shuffles of each value in a draw."""
FEWEST = 10
"""Minimum number of trials: about a third of them are left out in each draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """The importance of one searched value."""

    name: str
    value: float
    """Share of the variance of ranks lost by shuffling the value, averaged over draws."""
    low: float
    high: float
    """95% percentile interval over draws."""

    @property
    def distinguishable(self) -> bool:
        """The interval is above 0."""
        return self.low > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Importances:
    """The importance of every searched value that varied, highest first."""

    values: tuple[Importance, ...]
    trials: int
    rung: int
    """The budget in epochs at which the trials are compared."""
    explained: tuple[float, float, float]
    """Share of the variance of ranks that the forest explains on trials left out: mean and
    95% interval over draws. Below 0, the forest predicts worse than the mean rank."""


def importances(
    trials: Sequence[TrialFacts],
    space: Space,
    *,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Importances | None:
    """Estimate the importance of every searched value that varied; None below FEWEST trials.

    The score is the rank of a trial's NLL on val at the lowest rung, so a value that only
    pays off in longer training goes unnoticed.
    """
    search = [trial for trial in trials if trial.kind == "search" and trial.scores]
    rung = min((min(trial.scores) for trial in search), default=0)
    scored = [trial for trial in search if rung in trial.scores]
    if len(scored) < FEWEST:
        return None
    columns = {p.label: _encode(p, scored, space) for p in space.parameters}
    columns = {name: block for name, block in columns.items() if np.ptp(block, axis=0).any()}
    if not columns:
        return None
    ranks = _ranks(np.array([trial.scores[rung] for trial in scored]))
    losses, explained = _bootstrap(list(columns.values()), ranks, rng=rng, draws=draws)
    low, high = np.quantile(losses, [0.025, 0.975], axis=0)
    values = [
        Importance(
            name=name, value=float(losses[:, i].mean()), low=float(low[i]), high=float(high[i])
        )
        for i, name in enumerate(columns)
    ]
    ends = np.quantile(explained, [0.025, 0.975])
    return Importances(
        values=tuple(sorted(values, key=lambda item: (-item.value, item.name))),
        trials=len(scored),
        rung=rung,
        explained=(float(explained.mean()), float(ends[0]), float(ends[1])),
    )


def _bootstrap(
    blocks: Sequence[Floats], ranks: Floats, *, rng: np.random.Generator, draws: int
) -> tuple[Floats, Floats]:
    """Return the loss from shuffling each value [D, P] and the explained share [D]."""
    from sklearn.ensemble import ExtraTreesRegressor

    table = np.hstack(blocks)
    edges = np.cumsum([0, *(block.shape[1] for block in blocks)])
    spread = float(ranks.var())
    losses: list[Floats] = []
    explained: list[float] = []
    while len(losses) < draws:
        sample = rng.integers(0, len(ranks), len(ranks))
        left_out = np.setdiff1d(np.arange(len(ranks)), sample)
        if len(left_out) < 2 or np.ptp(ranks[sample]) == 0:
            continue
        forest = ExtraTreesRegressor(
            n_estimators=TREES,
            min_samples_leaf=2,
            max_features=0.5,
            random_state=int(rng.integers(2**31)),
        )
        forest.fit(table[sample], ranks[sample])
        shuffled = _shuffled(table[left_out], edges, rng)
        error = (forest.predict(shuffled).reshape(-1, len(left_out)) - ranks[left_out]) ** 2
        error = error.mean(axis=1) / spread
        per_value = error[1:].reshape(len(blocks), SHUFFLES).mean(axis=1)
        losses.append(per_value - error[0])
        explained.append(float(1 - error[0]))
    return np.array(losses), np.array(explained)


def _shuffled(rows: Floats, edges: Ints, rng: np.random.Generator) -> Floats:
    """Stack the rows unchanged, then SHUFFLES copies with each value shuffled in turn."""
    copies = [rows]
    for start, end in itertools.pairwise(edges):
        for _ in range(SHUFFLES):
            copy = rows.copy()
            copy[:, start:end] = rows[rng.permutation(len(rows)), start:end]
            copies.append(copy)
    return np.vstack(copies)


def _encode(parameter: Parameter, trials: Sequence[TrialFacts], space: Space) -> Floats:
    """Encode one searched value as columns [T, F]: one column per choice, or a number.

    Trials in which it was inactive get a choice of their own, or the median number.
    """
    values = [
        trial.recipe.get(parameter.name) if parameter.label in space.active(trial.recipe) else None
        for trial in trials
    ]
    numbers = [value for value in values if isinstance(value, int | float)]
    if parameter.type == "categorical" or len(numbers) < sum(v is not None for v in values):
        texts = np.array([value_text(value) for value in values])
        return np.stack([texts == choice for choice in np.unique(texts)], axis=1).astype(float)
    middle = float(np.median(numbers)) if numbers else 0.0
    column = np.array([middle if v is None else v for v in values], np.float64)[:, None]
    return np.log(np.maximum(column, 1e-12)) if parameter.log else column


def _ranks(values: Floats) -> Floats:
    """Return ranks from 0 to 1; equal values share their mean rank."""
    ranks: Floats = (rankdata(values) - 1) / max(len(values) - 1, 1)
    return ranks
