"""Which searched values moved the score, and how sure that is.

Axes: T trials, P searched values, D bootstrap draws, F columns of the encoded values.

A random forest learns the trials' rank from their searched values; a value is as important
as the forest gets worse on trials that it has not seen when that value is shuffled among
them (Breiman, 2001). All of it is repeated on D bootstrap samples of the trials, each time
judged on the trials left out, and the spread of the results is the interval. Only the lowest
rung compares all trials at one budget: beyond it the scheduler has chosen who is seen.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.facts.trials import TrialFacts
from common.formats import value_text
from search.space.space import Parameter, Space

Floats = NDArray[np.float64]
Ints = NDArray[np.integer[Any]]

DRAWS = 100
"""Bootstrap samples of trials: 30 ms each for 30 trials and 13 values."""
TREES = 25
SHUFFLES = 4
"""How often each value is shuffled in a draw."""
FEWEST = 10
"""Trials below which nothing is estimated: about a third of them judge in each draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """One searched value."""

    name: str
    value: float
    """Mean over draws of the share of the ranks' variance that shuffling the value costs."""
    low: float
    high: float
    """95% percentile interval over draws."""

    @property
    def distinguishable(self) -> bool:
        """The interval lies above 0."""
        return self.low > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Importances:
    """All searched values that varied, the most important first."""

    values: tuple[Importance, ...]
    trials: int
    rung: int
    """The budget in epochs at which the trials are compared."""
    explained: tuple[float, float, float]
    """Share of the ranks' variance that the forest explains on trials left out: mean, and
    95% interval over draws. Below 0 it guesses worse than the mean rank does."""


def importances(
    trials: Sequence[TrialFacts],
    space: Space,
    *,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Importances | None:
    """Importance of every searched value that varied; None of fewer than FEWEST trials.

    The score is the rank of a trial's NLL on val at the lowest rung. A value that only
    shows its worth in longer training is therefore not seen.
    """
    search = [trial for trial in trials if trial.kind == "search" and trial.scores]
    rung = min((min(trial.scores) for trial in search), default=0)
    scored = [trial for trial in search if rung in trial.scores]
    if len(scored) < FEWEST:
        return None
    columns = {p.name: _encode(p, scored) for p in space.parameters}
    columns = {name: block for name, block in columns.items() if np.ptp(block, axis=0).any()}
    if not columns:
        return None
    ranks = _ranks(np.array([trial.scores[rung] for trial in scored]))
    losses, explained = _bootstrap(list(columns.values()), ranks, rng=rng, draws=draws)
    low, high = np.quantile(losses, [0.025, 0.975], axis=0)
    found = [
        Importance(
            name=name, value=float(losses[:, i].mean()), low=float(low[i]), high=float(high[i])
        )
        for i, name in enumerate(columns)
    ]
    ends = np.quantile(explained, [0.025, 0.975])
    return Importances(
        values=tuple(sorted(found, key=lambda item: (-item.value, item.name))),
        trials=len(scored),
        rung=rung,
        explained=(float(explained.mean()), float(ends[0]), float(ends[1])),
    )


def _bootstrap(
    blocks: Sequence[Floats], ranks: Floats, *, rng: np.random.Generator, draws: int
) -> tuple[Floats, Floats]:
    """Losses [D, P] by shuffling each value, and explained shares [D], on trials left out."""
    from sklearn.ensemble import ExtraTreesRegressor

    table = np.hstack(blocks)
    edges = np.cumsum([0, *(block.shape[1] for block in blocks)])
    spread = float(ranks.var())
    losses: list[Floats] = []
    explained: list[float] = []
    while len(losses) < draws:
        inside = rng.integers(0, len(ranks), len(ranks))
        outside = np.setdiff1d(np.arange(len(ranks)), inside)
        if len(outside) < 2 or np.ptp(ranks[inside]) == 0:
            continue
        forest = ExtraTreesRegressor(
            n_estimators=TREES,
            min_samples_leaf=2,
            max_features=0.5,
            random_state=int(rng.integers(2**31)),
        )
        forest.fit(table[inside], ranks[inside])
        judged = _shuffled(table[outside], edges, rng)
        error = (forest.predict(judged).reshape(-1, len(outside)) - ranks[outside]) ** 2
        error = error.mean(axis=1) / spread
        per_value = error[1:].reshape(len(blocks), SHUFFLES).mean(axis=1)
        losses.append(per_value - error[0])
        explained.append(float(1 - error[0]))
    return np.array(losses), np.array(explained)


def _shuffled(rows: Floats, edges: Ints, rng: np.random.Generator) -> Floats:
    """The rows as they are, then SHUFFLES copies for each value with it shuffled."""
    copies = [rows]
    for start, end in itertools.pairwise(edges):
        for _ in range(SHUFFLES):
            copy = rows.copy()
            copy[:, start:end] = rows[rng.permutation(len(rows)), start:end]
            copies.append(copy)
    return np.vstack(copies)


def _encode(parameter: Parameter, trials: Sequence[TrialFacts]) -> Floats:
    """One searched value of each trial as columns [T, F]: a column a choice, or a number."""
    values = [trial.recipe.get(parameter.name) for trial in trials]
    if parameter.type == "categorical" or not all(isinstance(v, int | float) for v in values):
        texts = np.array([value_text(value) for value in values])
        return np.stack([texts == choice for choice in np.unique(texts)], axis=1).astype(float)
    numbers = np.array(values, np.float64)[:, None]
    return np.log(np.maximum(numbers, 1e-12)) if parameter.log else numbers


def _ranks(values: Floats) -> Floats:
    """Ranks from 0 to 1; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    upto = np.cumsum(counts)
    mean: Floats = (upto - (counts + 1) / 2)[place] / max(len(values) - 1, 1)
    return mean
