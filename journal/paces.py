"""The pace of trials: seconds of an epoch of the last stage."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from common.stage_costs import StageCosts
from journal.trial import Trial

RECENT = 1000
"""Trials whose pace is known: the last that started. So the cost of a median does not grow."""


class Timed(NamedTuple):
    """The timed epochs of one trial."""

    seconds: float
    cost: float
    """In epochs of the last stage."""


@dataclass(slots=True)
class Paces:
    """The paces of a run's trials, in all and by recipe."""

    _trials: list[Trial] = field(default_factory=list)
    _same: dict[int, list[Trial]] = field(default_factory=dict)
    """Trials by the hash of their recipe, whatever its number of epochs."""
    _timed: dict[str, tuple[int, StageCosts, Timed]] = field(default_factory=dict)
    """The timed epochs of a trial, after so many steps and with these costs."""

    def add(self, trial: Trial) -> None:
        """Add a trial that starts for the first time."""
        self._trials.append(trial)
        self._same.setdefault(_hash_of(trial.recipe), []).append(trial)

    def all(self, costs: Mapping[str, StageCosts], usual: StageCosts) -> list[Timed]:
        """Return the timed epochs of the recent trials; `costs` by family, otherwise `usual`."""
        return self._of(self._trials, costs, usual)

    def of_recipe(
        self, recipe: Mapping[str, Any], costs: Mapping[str, StageCosts], usual: StageCosts
    ) -> list[Timed]:
        """Return the timed epochs of the recent trials with this recipe, whatever its length."""
        asked = _without_length(recipe)
        known = self._same.get(_hash_of(recipe), [])[-RECENT:]
        same = [trial for trial in known if _without_length(trial.recipe) == asked]
        return self._of(same, costs, usual)

    def _of(
        self, trials: list[Trial], costs: Mapping[str, StageCosts], usual: StageCosts
    ) -> list[Timed]:
        timed = (
            self._timed_of(trial, costs.get(trial.family, usual)) for trial in trials[-RECENT:]
        )
        return [each for each in timed if each.cost]

    def _timed_of(self, trial: Trial, costs: StageCosts) -> Timed:
        known = self._timed.get(trial.name)
        if known is None or known[:2] != (trial.step, costs):
            known = self._timed[trial.name] = (trial.step, costs, Timed(*trial.timed(costs)))
        return known[2]


def weighted_median(weighted: Iterable[tuple[float, float]]) -> float:
    """Return the value below and above which lies half of the weight, from (value, weight) pairs.

    With equal weights it is the median: between two values, their mean.
    """
    pairs = sorted(weighted)
    half, below = sum(weight for _, weight in pairs) / 2, 0.0
    for index, (value, weight) in enumerate(pairs):
        below += weight
        if math.isclose(below, half) and index + 1 < len(pairs):
            return (value + pairs[index + 1][0]) / 2
        if below > half:
            return value
    raise ValueError("no weight")


def _without_length(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe without the number of its epochs: an epoch takes the same time with any."""
    return {key: value for key, value in recipe.items() if key != "epochs"}


def _hash_of(recipe: Mapping[str, Any]) -> int:
    """Return a hash that is equal for recipes that differ in length only."""
    return hash(_frozen(_without_length(recipe)))


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(sorted((key, _frozen(item)) for key, item in value.items()))
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
