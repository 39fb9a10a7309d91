"""Select ensemble members greedily, with replacement.

Axes: M members, N examples. `prob_true[i, m]` is the probability that member m gives to
example i's true class. The NLL of a linear pool needs nothing else, so there is no class axis.
Each round screens all members in float32 (`ensemble.selection.screening`) and decides in float64
among those that the screen cannot tell from the best, so the picks are the same as in float64
throughout.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from common.errors import PoolError
from ensemble.selection.screening import MeanLogs
from ensemble.selection.weights import TINY

ROUNDS = 40
"""Rounds of selection; more only sharpen the weights and overfit (AutoGluon #4737)."""

TOLERANCE = 1e-12
"""Relative difference below which two NLLs tie: the rounding error of a mean over thousands of
terms."""

FEW = 8
"""Number of members up to which screening does not pay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GreedySelection:
    """The best prefix of a greedy selection."""

    order: tuple[int, ...]
    """The member added in each round; members may repeat."""
    trace: tuple[float, ...]
    """NLL of the pool after each round, in nats per example."""

    @property
    def nll(self) -> float:
        """NLL of the whole prefix, in nats per example."""
        return self.trace[-1]

    @property
    def members(self) -> tuple[int, ...]:
        """The distinct members, in the order in which they were first chosen."""
        return tuple(dict.fromkeys(self.order))

    def weights(self, pool_size: int) -> Float[np.ndarray, " M"]:
        """Return each member's share of the rounds; the sum is 1."""
        return np.bincount(self.order, minlength=pool_size) / len(self.order)


def select_greedy(
    prob_true: Float[np.ndarray, "N M"],
    *,
    rng: np.random.Generator,
    rounds: int = ROUNDS,
    cap: int | None = None,
    sorted_start: int = 0,
) -> GreedySelection:
    """Select members with replacement to minimise the pool's NLL (Caruana et al., 2004).

    Each round adds the member whose inclusion gives the lowest NLL of the running mean. The
    shortest prefix of rounds with the lowest NLL is kept. At most `cap` distinct members are
    taken. `sorted_start` starts from that many of the best single members. Members with a
    non-finite column never win; ties favour current members, then `rng`. Cost O(rounds·N·M).

    Raises:
        PoolError: rounds or cap < 1, sorted_start < 0, or no member is finite.
    """
    usable = _usable_members(prob_true, rounds=rounds, cap=cap, sorted_start=sorted_start)
    losses = _Losses(prob_true, usable)
    cap = len(usable) if cap is None else cap
    order = _best_singles(losses, min(sorted_start, cap, rounds), rng)
    trace, total = [], np.zeros(len(prob_true))
    for n, member in enumerate(order, start=1):
        total += losses.column(member)
        trace.append(_nll(total / n))
    while len(order) < rounds:
        candidates = np.arange(len(usable)) if len(set(order)) < cap else np.unique(order)
        candidates, values = losses.lowest(candidates, total)
        values += np.log(len(order) + 1)
        winner = int(candidates[_winner(values, np.isin(candidates, order), rng)])
        order.append(winner)
        total += losses.column(winner)
        trace.append(_nll(total / len(order)))
    best = _shortest_best(trace)
    return GreedySelection(
        order=tuple(int(usable[member]) for member in order[:best]), trace=tuple(trace[:best])
    )


def select_bagged(
    prob_true: Float[np.ndarray, "N M"],
    *,
    rng: np.random.Generator,
    bags: int,
    fraction: float = 0.5,
    rounds: int = ROUNDS,
    cap: int | None = None,
    sorted_start: int = 0,
) -> GreedySelection:
    """Select greedily in `bags` random subsets of the members, and merge the selections.

    Each bag sees `fraction` of the members (at least one). The orders are interleaved, first
    choices first, and the `cap` members chosen most often stay. To get a large weight a member
    must win in many bags: Caruana's defence against overfitting a large pool. Cost
    O(bags·rounds·N·M·fraction).

    Raises:
        PoolError: bags < 1, fraction outside (0, 1], or as `select_greedy`.
    """
    if bags < 1 or not 0.0 < fraction <= 1.0:
        raise PoolError(f"bagging needs bags >= 1 and 0 < fraction <= 1, got {bags}, {fraction}")
    usable = _usable_members(prob_true, rounds=rounds, cap=cap, sorted_start=sorted_start)
    size = max(1, round(fraction * len(usable)))
    orders = []
    for _ in range(bags):
        bag = np.sort(rng.choice(usable, size=size, replace=False))
        chosen = select_greedy(
            prob_true[:, bag], rng=rng, rounds=rounds, cap=cap, sorted_start=sorted_start
        )
        orders.append([int(bag[member]) for member in chosen.order])
    merged = [
        order[turn]
        for turn in range(max(map(len, orders)))
        for order in orders
        if turn < len(order)
    ]
    counts = np.bincount(merged, minlength=prob_true.shape[1])
    # The sort is stable: among equally frequent members, those chosen earlier stay.
    frequent = sorted(dict.fromkeys(merged), key=lambda member: -counts[member])[:cap]
    order = tuple(member for member in merged if member in set(frequent))
    running = np.cumsum(np.maximum(prob_true[:, order], TINY), axis=1) / np.arange(
        1, len(order) + 1
    )
    return GreedySelection(order=order, trace=tuple((-np.log(running)).mean(axis=0).tolist()))


def _usable_members(
    prob_true: Float[np.ndarray, "N M"], *, rounds: int, cap: int | None, sorted_start: int
) -> Int[np.ndarray, " U"]:
    if rounds < 1:
        raise PoolError(f"rounds must be at least 1, got {rounds}")
    if cap is not None and cap < 1:
        raise PoolError(f"an ensemble needs at least 1 member, got a cap of {cap}")
    if sorted_start < 0:
        raise PoolError(f"sorted_start must be 0 or more, got {sorted_start}")
    if prob_true.ndim != 2 or 0 in prob_true.shape:
        raise PoolError(
            f"expected probabilities [N, M] with N and M at least 1, got shape {prob_true.shape}"
        )
    usable = np.flatnonzero(np.isfinite(prob_true).all(axis=0))
    if not usable.size:
        raise PoolError(f"none of the {prob_true.shape[1]} members has finite predictions")
    return usable


class _Losses:
    """Losses −mean_i log(total_i + T_im) of the usable members m."""

    def __init__(self, prob_true: Float[np.ndarray, "N M"], usable: Int[np.ndarray, " U"]) -> None:
        self._prob_true, self._usable = prob_true, usable
        self.examples, self.count = len(prob_true), len(usable)
        everyone = len(usable) == prob_true.shape[1]
        self._screen = MeanLogs(prob_true if everyone else prob_true[:, usable])

    def column(self, member: int) -> Float[np.ndarray, " N"]:
        """Return a member's probabilities in float64."""
        values = self._prob_true[:, self._usable[member]].astype(np.float64)
        return np.asarray(np.maximum(values, TINY))

    def exact(
        self, candidates: Int[np.ndarray, " C"], total: Float[np.ndarray, " N"]
    ) -> Float[np.ndarray, " C"]:
        """Return the losses of these members, computed in float64."""
        return np.array([-np.log(self.column(m) + total).mean() for m in candidates.tolist()])

    def lowest(
        self, candidates: Int[np.ndarray, " C"], total: Float[np.ndarray, " N"]
    ) -> tuple[Int[np.ndarray, " L"], Float[np.ndarray, " L"]]:
        """Return the candidates that may have the lowest loss, or tie with it, and their losses."""
        if len(candidates) > FEW and self._screen.trusted:
            means, error = self._screen.at(total)
            slack = 2.0 * error + TOLERANCE * (1.0 + float(np.abs(means).max()))
            means = means[candidates]
            candidates = candidates[means >= means.max() - slack]
        return candidates, self.exact(candidates, total)


def _best_singles(losses: _Losses, count: int, rng: np.random.Generator) -> list[int]:
    if count == 0:
        return []
    members = np.arange(losses.count)
    values = losses.exact(members, np.zeros(losses.examples))
    # The random key breaks exact ties only.
    return [int(m) for m in np.lexsort((rng.random(len(values)), values))[:count]]


def _winner(losses: Float[np.ndarray, " C"], current: np.ndarray, rng: np.random.Generator) -> int:
    tied = losses <= losses.min() + TOLERANCE * max(1.0, abs(float(losses.min())))
    if (tied & current).any():
        tied &= current
    choices = np.flatnonzero(tied)
    return int(choices[0] if len(choices) == 1 else rng.choice(choices))


def _shortest_best(trace: list[float]) -> int:
    lowest = min(trace)
    slack = TOLERANCE * max(1.0, abs(lowest))
    return 1 + next(n for n, nll in enumerate(trace) if nll <= lowest + slack)


def _nll(prob_true: Float[np.ndarray, " N"]) -> float:
    return float(-np.log(prob_true).mean())
