"""The candidate ensembles among which the selection chooses, and how they are fitted and scored.

Axes: M members, N examples, R rows (examples in view), K classes.

A candidate is a way to order the pool's members, a number of members, uniform or learned weights,
and raw or calibrated pooling. Candidates of every size come from one cumulative sum per way and
pooling. Learned weights are those of the way's largest ensemble, optimal for the probabilities
that they are used on.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float32

from common.errors import PoolError
from common.statistics.metrics import LOG_FLOOR
from ensemble.selection.mixture import (
    Pooling,
    Rows,
    View,
    Weights,
    centred_scores,
    fit_scores,
    log_prob_true,
)
from ensemble.selection.orders import WAYS, Likeness, Way, order_members
from ensemble.selection.pool import Pool
from ensemble.selection.predictions import RecentArrays
from ensemble.selection.weights import simplex_weights

LEAST_WEIGHT = 1e-3
"""Smallest learned weight that justifies running its member."""

LEARNED: tuple[Way, ...] = ("top", "greedy")
"""Ways that also get a candidate with learned weights; all ways do if the request asks for them. By
default, learned weights for the other ways would add candidates, and the best of more candidates
owes more to luck."""

TIED_ERRORS = 1.0
"""Standard errors within which members tie in the way `diverse`, unless the request says
otherwise."""

Weighting = Literal["uniform", "learned"]
Source = Literal["auto", "search", "seeds", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The ensembles that a user allows; the defaults leave every choice to the data."""

    members: int = 5
    """Largest ensemble."""
    source: Source = "auto"
    """Members to choose from. `search`: the trials of the search; `seeds`: seeds of the best
    configuration; `all`: both, by their scores; `auto`: `all`, in competition with seeds alone."""
    weighting: Literal["auto", "uniform", "learned"] = "auto"
    diversity: float | None = None
    """Choose members by the way `diverse` only; members within this many standard errors tie. 0
    excludes that way; None lets it compete with the other ways."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        if self.members < 1:
            raise PoolError(f"an ensemble needs at least 1 member, got members={self.members}")
        for name, known in (
            ("source", get_args(Source)),
            ("weighting", ("auto", *get_args(Weighting))),
        ):
            if getattr(self, name) not in known:
                raise PoolError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        if self.diversity is not None and not 0 <= self.diversity < np.inf:
            raise PoolError(
                f"diversity is a number of standard errors, 0 or more; got {self.diversity}"
            )

    def ways(self, pool: Pool) -> tuple[Way, ...]:
        """Return the ways to choose members that the request allows in this pool."""
        if self.diversity:
            return ("diverse",)
        if self.source == "seeds":
            return ("seeds",)
        excluded: set[Way] = set()
        if self.source != "auto" or "seed" not in pool.kinds:
            excluded.add("seeds")
        if self.diversity == 0:
            excluded.add("diverse")
        return tuple(way for way in WAYS if way not in excluded)

    def eligible(self, pool: Pool) -> tuple[int, ...]:
        """Return the members that may be chosen.

        Raises:
            PoolError: there are none.
        """
        kept = {"search": ("search", ""), "seeds": ("seed",)}.get(self.source)
        members = tuple(m for m, kind in enumerate(pool.kinds) if kept is None or kind in kept)
        if not members:
            missing = "seeds of the best configuration" if self.source == "seeds" else "trials"
            raise PoolError(
                f"source is {self.source}, but the pool has no {missing} among its "
                f"{len(pool.kinds)} members; choose another source"
            )
        return members


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A procedure that makes an ensemble from a view."""

    way: Way
    size: int
    """Number of members; fewer if there are not as many."""
    weighting: Weighting = "uniform"
    pooling: Pooling = "raw"

    @property
    def name(self) -> str:
        """A short description, such as `top 5, calibrated` or `greedy 5, learned`."""
        parts = [f"{self.way} {self.size}" if self != BEST_SINGLE else "best single"]
        parts += ["learned"] if self.weighting == "learned" else []
        return ", ".join(parts + (["calibrated"] if self.pooling == "calibrated" else []))

    @property
    def place(self) -> tuple[bool, bool, int, int]:
        """The place in the order of preference, lower first; see `ensemble.selection.choice`."""
        return (
            self.weighting == "learned",
            self.pooling == "calibrated",
            WAYS.index(self.way),
            -self.size,
        )


BEST_SINGLE = Candidate(way="top", size=1)


def candidates_of(request: Request, pool: Pool) -> tuple[Candidate, ...]:
    """Return the candidates that a request allows, in their order of preference."""
    eligible = request.eligible(pool)
    seeds = sum(pool.kinds[member] == "seed" for member in eligible)
    candidates = []
    for way in request.ways(pool):
        most = min(request.members, seeds if way == "seeds" else len(eligible))
        # The first member of the other ways is nearly always the best single member, too.
        least = 1 if way in ("seeds", "top") or request.diversity else 2
        if least > most:
            continue
        for pooling in get_args(Pooling):
            if request.weighting != "learned":
                candidates += [
                    Candidate(way=way, size=size, pooling=pooling)
                    for size in range(least, most + 1)
                    if size > 1 or pooling == "raw"  # a single member has one temperature
                ]
            if request.weighting == "learned" or (
                request.weighting == "auto" and most > 1 and way in LEARNED
            ):
                candidates.append(
                    Candidate(way=way, size=most, weighting="learned", pooling=pooling)
                )
    return tuple(sorted(candidates, key=lambda candidate: candidate.place))


@dataclass(slots=True, kw_only=True, eq=False)
class Fit:
    """The candidates fitted to the examples of a view."""

    view: View
    request: Request
    likeness: Likeness
    seed: int
    _orders: dict[Way, tuple[int, ...]] = field(default_factory=dict)
    _learned: dict[tuple[Pooling, frozenset[int]], Weights] = field(default_factory=dict)

    def order(self, way: Way) -> tuple[int, ...]:
        """Return the members in the order in which they were chosen."""
        if way not in self._orders:
            slack = self.request.diversity or TIED_ERRORS
            self._orders[way] = order_members(
                way,
                self.view,
                self.likeness,
                eligible=self.request.eligible(self.view.pool),
                most=self.request.members,
                tied_errors=slack,
                seed=self.seed,
            )
        return self._orders[way]

    def weights(self, candidate: Candidate) -> Weights:
        """Return a candidate's weights, one per member of the pool."""
        members = self.order(candidate.way)[: candidate.size]
        if candidate.weighting == "uniform":
            return uniform_weights(members, len(self.view.pool.names))
        key = (candidate.pooling, frozenset(members))
        if key not in self._learned:
            self._learned[key] = learned_weights(self.view, members, candidate.pooling)
        return self._learned[key]

    def losses(
        self, candidates: Sequence[Candidate], rows: Rows
    ) -> Mapping[Candidate, Float[np.ndarray, " R"]]:
        """Return the NLL of each of `rows`, outside the view, under each candidate.

        Each candidate is calibrated by the temperature that is fitted to the view.
        """
        scorer = _Scorer(self.view, rows)
        losses = {}
        for pooling, way in sorted({(c.pooling, c.way) for c in candidates}):
            order = self.order(way)
            group = [c for c in candidates if (c.pooling, c.way) == (pooling, way)]
            sizes = {min(c.size, len(order)): None for c in group if c.weighting == "uniform"}
            by_size = scorer.prefixes(order, pooling, sizes)
            for candidate in group:
                if candidate.weighting == "uniform":
                    losses[candidate] = by_size[min(candidate.size, len(order))]
                else:
                    losses[candidate] = scorer.mixture(self.weights(candidate), pooling)
        return losses


class _Scorer:
    """Losses of many ensembles of the same members outside a view, each computed once."""

    def __init__(self, view: View, rows: Rows) -> None:
        self._view, self._rows = view, np.concatenate([view.rows, rows])
        self._labels = view.pool.labels[rows]
        self._masses = RecentArrays()
        self._losses: dict[object, Float[np.ndarray, " R"]] = {}
        self._start = 1.0

    def prefixes(
        self, order: Sequence[int], pooling: Pooling, sizes: Collection[int]
    ) -> dict[int, Float[np.ndarray, " R"]]:
        """Return the losses of the uniform ensembles of the first n members, for n in `sizes`."""
        running: Float32[np.ndarray, "K R"] | None = None
        losses = {}
        for size, member in enumerate(order[: max(sizes, default=0)], start=1):
            masses = self._members(member, pooling)
            running = masses.copy() if running is None else np.add(running, masses, out=running)
            if size in sizes:
                key = (pooling, frozenset(order[:size]))
                if key not in self._losses:
                    self._losses[key] = self._score(running / np.float32(size))
                losses[size] = self._losses[key]
        return losses

    def mixture(self, weights: Weights, pooling: Pooling) -> Float[np.ndarray, " R"]:
        """Return the losses of a mixture with these weights."""
        key = (pooling, weights.tobytes())
        if key not in self._losses:
            support = np.flatnonzero(weights).tolist()
            total = np.zeros((self._view.pool.log_probs.shape[2], len(self._rows)), np.float32)
            for member in support:
                total += np.float32(weights[member]) * self._members(member, pooling)
            self._losses[key] = self._score(total)
        return self._losses[key]

    def _score(self, pooled: Float32[np.ndarray, "K R"]) -> Float[np.ndarray, " R"]:
        scores = centred_scores(np.log(pooled))
        seen = len(self._view.rows)
        inside = np.ascontiguousarray(scores[:, :seen])
        # The ensembles of a view differ little in temperature, so each fit starts from the last
        # one's.
        self._start = fit_scores(inside, self._view.labels, start=self._start)
        return -log_prob_true(scores[:, seen:], self._labels, self._start)

    def _members(self, member: int, pooling: Pooling) -> Float32[np.ndarray, "K R"]:
        """Return a member's probabilities as they enter the pool."""

        def masses() -> Float32[np.ndarray, "K R"]:
            log_probs = self._view.pool.log_probs[member][self._rows].T
            scores = np.maximum(log_probs, np.float32(LOG_FLOOR), order="C")
            if pooling == "calibrated":
                scores -= scores.max(axis=0)
                scores *= np.float32(1.0 / self._view.temperatures[member])
            np.exp(scores, out=scores)
            if pooling == "calibrated":
                scores /= scores.sum(axis=0)
            return np.asarray(scores)

        return self._masses.get((member, pooling), masses)


def learned_weights(view: View, members: Sequence[int], pooling: Pooling = "raw") -> Weights:
    """Return the optimal weights of these members, without weights below LEAST_WEIGHT."""
    support, prob_true = np.array(members), view.prob_true(pooling, members)
    shares = simplex_weights(prob_true)
    while shares.min() < LEAST_WEIGHT:
        kept = shares >= LEAST_WEIGHT
        support, prob_true = support[kept], prob_true[:, kept]
        shares = simplex_weights(prob_true)
    weights = np.zeros(len(view.pool.names))
    weights[support] = shares
    return weights


def uniform_weights(members: Sequence[int], pool_size: int) -> Weights:
    """Return equal weights for these members of the pool."""
    weights = np.zeros(pool_size)
    weights[list(members)] = 1.0 / len(members)
    return weights
