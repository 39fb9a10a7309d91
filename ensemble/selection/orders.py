"""Order a pool's members in one of five ways; the first n of an order are an ensemble.

Axes: M members, N examples of the pool, R rows (examples in view). Each way gives at most `most`
distinct members, and takes no near-duplicate of a member taken before. Only labels in view are
used; which members are alike, and how often two disagree, needs no labels and is measured on the
whole pool.

`seeds`    the first seeds of the best configuration; nothing is chosen on these examples
`top`      the best single members, by NLL at each one's own temperature
`diverse`  the same, except that ties go to the member that disagrees most with those taken
`greedy`   forward selection with replacement (Caruana et al., 2004)
`bagged`   the same in random halves of the pool, started from its two best members; the members
           chosen most often stay
"""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from common.seeds import numpy_generator
from ensemble.selection.diversity import NEAR
from ensemble.selection.greedy import select_bagged, select_greedy
from ensemble.selection.mixture import View
from ensemble.selection.pool import Pool

Way = Literal["seeds", "top", "diverse", "greedy", "bagged"]
WAYS: tuple[Way, ...] = get_args(Way)

SHORTLIST = 60
"""Number of best single members among which `greedy`, `bagged` and `diverse` choose. It bounds the
cost in large pools and limits overfitting (Caruana et al., 2006)."""

BAGS = 5
BAG_ROUNDS = 20
"""Rounds of selection in each bag; they only rank members, so they need not settle weights."""

SORTED_START = 2
"""Best single members that each bag starts from."""


class Likeness:
    """Likeness of two members' predictions, measured once per pair and without labels."""

    def __init__(self, pool: Pool) -> None:
        """Measure nothing yet."""
        self._pool = pool
        self._distances: dict[tuple[int, int], float] = {}
        self._predicted: dict[int, Int[np.ndarray, " N"]] = {}

    def near_duplicates(self, a: int, b: int) -> bool:
        """Return whether two members are as close as `diversity.near_duplicates` requires."""
        pair = (min(a, b), max(a, b))
        if pair not in self._distances:
            least = self._least_distance(a, b)
            if least > 1.01 * NEAR:
                self._distances[pair] = least
        if pair not in self._distances:
            first, second = (np.exp(self._pool.log_probs[member]) for member in pair)
            apart = np.square(first - second).sum(axis=1, dtype=np.float64)
            self._distances[pair] = float(np.sqrt(apart.mean()))
        return self._distances[pair] <= NEAR

    def disagreement(self, a: int, b: int) -> float:
        """Return the share of examples on which two members name different classes."""
        return float((self._classes(a) != self._classes(b)).mean())

    def _least_distance(self, a: int, b: int) -> float:
        """Return a lower bound on the distance, from the true classes' probabilities alone.

        These are in memory, so that clearly different members need not be read from disk.
        """
        first, second = self._pool.prob_true([a, b]).T
        return float(np.sqrt(np.square(first - second).mean(dtype=np.float64)))

    def _classes(self, member: int) -> Int[np.ndarray, " N"]:
        if member not in self._predicted:
            self._predicted[member] = self._pool.log_probs[member].argmax(axis=1)
        return self._predicted[member]


def order_members(
    way: Way,
    view: View,
    likeness: Likeness,
    *,
    eligible: Sequence[int],
    most: int,
    tied_errors: float,
    seed: int,
) -> tuple[int, ...]:
    """Return at most `most` of the `eligible` members, in the order in which to take them.

    `tied_errors` is used by `diverse`: members are tied if their NLL exceeds that of the best
    member left by at most this many standard errors of the paired difference.
    """
    if way == "seeds":
        seeds = (member for member in eligible if view.pool.kinds[member] == "seed")
        return _distinct(seeds, likeness, most)
    ranked = [member for member in view.ranked().tolist() if member in set(eligible)]
    if way == "top":
        return _distinct(ranked, likeness, most)
    shortlist = ranked[: max(SHORTLIST, 4 * most)]
    if way == "diverse":
        return _diverse(view, likeness, shortlist, most=most, tied_errors=tied_errors)
    # In the order of their ranks, so that the pool's order decides neither bags nor ties.
    columns, own = np.array(shortlist), view.prob_true("calibrated", shortlist)
    rng = numpy_generator(seed, "select", "ties" if way == "greedy" else "bags")
    if way == "greedy":
        chosen = select_greedy(own, rng=rng, cap=most).members
    else:
        bagged = select_bagged(
            own,
            rng=rng,
            bags=BAGS,
            rounds=BAG_ROUNDS,
            cap=most,
            sorted_start=SORTED_START,
        )
        times = np.bincount(bagged.order)
        chosen = tuple(sorted(bagged.members, key=lambda member: -times[member]))
    return _distinct(columns[list(chosen)].tolist(), likeness, most)


def _distinct(members: Iterable[int], likeness: Likeness, most: int) -> tuple[int, ...]:
    """Return the first `most` members that are not near-duplicates of an earlier one."""
    taken: list[int] = []
    for member in members:
        if len(taken) == most:
            break
        if not any(likeness.near_duplicates(member, earlier) for earlier in taken):
            taken.append(member)
    return tuple(taken)


def _diverse(
    view: View, likeness: Likeness, ranked: Sequence[int], *, most: int, tied_errors: float
) -> tuple[int, ...]:
    """Take the best member; then, of those tied with the best left, always the most different."""
    losses: Float[np.ndarray, "R S"] = -np.log(view.prob_true("calibrated", ranked))
    column = {member: place for place, member in enumerate(ranked)}
    taken, left = [ranked[0]], list(ranked[1:])
    while len(taken) < most:
        left = [m for m in left if not likeness.near_duplicates(m, taken[-1])]
        if not left:
            break
        columns = [column[m] for m in left]
        excess = losses[:, columns] - losses[:, columns[:1]]
        errors = excess.std(axis=0, ddof=1) / np.sqrt(len(excess)) if len(excess) > 1 else 0.0
        tied = np.flatnonzero(excess.mean(axis=0) <= tied_errors * errors)
        chosen = max(  # the first of equals is the one of lower NLL
            tied.tolist(),
            key=lambda place: sum(likeness.disagreement(left[place], m) for m in taken),
        )
        taken.append(left.pop(chosen))
    return tuple(taken)
