"""The Pareto front of a pool: size, latency and NLL on holdout of its networks and ensembles.

Costs are those of the file that would ship, int8 unless that is the slower one; an ensemble's are
the sums of its members'. NLL is measured before quantization: a network's at its own temperature,
an ensemble's cross-fitted. Axes: M members, N examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from common.files import dump_json, read_versioned, write_bytes_atomically
from common.parsing import to_mapping
from common.statistics.metrics import apply_temperature, fit_temperature, nll
from ensemble.selection.pool import Pool
from ensemble.selection.selection import FrontPoint, Member, Selection

SCHEMA = 1

MOST_POINTS = 50
"""Largest number of listed trials that are not on the front: those with the lowest NLL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialCost:
    """The cost of a trial's network as it would ship; None if it was not measured."""

    params: int | None = None
    gflops: float | None = None
    bytes: int | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCosts:
    """The costs of a pool's networks, as costs.json holds them."""

    schema: int = SCHEMA
    machine: dict[str, Any]
    """The machine on which latencies were measured."""
    trials: dict[str, TrialCost]


def write_costs(path: Path, costs: PoolCosts) -> None:
    """Write costs.json atomically."""
    write_bytes_atomically(path, dump_json(to_mapping(costs)).encode())


def read_costs(path: Path) -> dict[str, TrialCost]:
    """Read the costs by trial; none if there is no such file.

    Raises:
        RunError: the file is damaged or of another schema.
    """
    return read_versioned(PoolCosts, path, schema=SCHEMA).trials if path.is_file() else {}


def with_front(
    selection: Selection,
    pool: Pool,
    costs: Mapping[str, TrialCost],
    budgets: Mapping[str, float | None],
) -> Selection:
    """Return the selection with the front of its pool, which is empty if no cost is known.

    `budgets` holds limits, keyed by fields of TrialCost; None means no limit.
    """
    if not costs:
        return selection
    labels = pool.labels
    own = {
        name: nll(apply_temperature(log_probs, fit_temperature(log_probs, labels)), labels)
        for name, log_probs in zip(pool.names, pool.log_probs, strict=True)
        if name in costs
    }
    points = [_point(name, "trial", score, costs[name], budgets) for name, score in own.items()]
    seeds = selection.seeds_ensemble
    scores = {
        "uniform_top_k": selection.uniform_top_k.nll,
        "seeds_ensemble": None if seeds is None else seeds.nll,
        "ensemble": selection.metrics.holdout.nll,
    }
    for stage, members in selection.pooled_stages().items():
        score = scores.get(stage)
        if score is not None and len(members) > 1:
            points.append(_point(stage, "ensemble", score, _total(members, costs), budgets))
    return replace(selection, front=_shown(mark_efficient(points)))


def mark_efficient(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """Return the points by rising NLL; mark those that no other beats in all three measures.

    A point beats another if it is no larger, no slower and has no higher NLL, and is better in at
    least one of them. Points whose size or latency is unknown are not compared.
    """
    ordered = sorted(points, key=lambda point: (point.nll, point.bytes or 0, point.latency_ms or 0))
    values = {id(point): _measures(point) for point in ordered}
    marked = []
    for point in ordered:
        own = values[id(point)]
        efficient = None
        if own is not None:
            efficient = not any(
                other is not None
                and other != own
                and all(a <= b for a, b in zip(other, own, strict=True))
                for other in values.values()
            )
        marked.append(replace(point, efficient=efficient))
    return marked


def _measures(point: FrontPoint) -> tuple[float, float, float] | None:
    if point.bytes is None or point.latency_ms is None:
        return None
    return point.nll, float(point.bytes), point.latency_ms


def _point(
    name: str,
    kind: Literal["trial", "ensemble"],
    nll: float,
    cost: TrialCost,
    budgets: Mapping[str, float | None],
) -> FrontPoint:
    values = to_mapping(cost)
    over = tuple(
        budget
        for budget, limit in budgets.items()
        if limit is not None and values[budget] is not None and values[budget] > limit
    )
    return FrontPoint(name=name, kind=kind, nll=nll, over=over, **values)


def _total(members: Sequence[Member], costs: Mapping[str, TrialCost]) -> TrialCost:
    """Return the cost of running all members one after the other."""
    each = [to_mapping(costs.get(member.name, TrialCost())) for member in members]
    return TrialCost(
        **{
            key: None if any(cost[key] is None for cost in each) else sum(c[key] for c in each)
            for key in to_mapping(TrialCost())
        }
    )


def _shown(points: Sequence[FrontPoint]) -> tuple[FrontPoint, ...]:
    """Return the front, the ensembles, and the best of the other trials."""
    others = [p for p in points if p.kind == "trial" and not p.efficient][:MOST_POINTS]
    kept = {id(point) for point in others}
    return tuple(p for p in points if p.efficient or p.kind == "ensemble" or id(p) in kept)
