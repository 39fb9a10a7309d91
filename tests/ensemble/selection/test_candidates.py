"""Requests allow what they say, and nothing else."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.errors import PoolError
from ensemble.selection.candidates import BEST_SINGLE, Candidate, Request, candidates_of
from ensemble.selection.decision import select_ensemble
from tests.pools import synthetic_pool

POOL = synthetic_pool(2, skills=[1.8] * 6 + [1.6] * 3, seeds=3, examples=150)


def test_every_size_weighting_and_pooling_competes() -> None:
    candidates = candidates_of(Request(members=3), POOL)
    for way in ("seeds", "top"):
        assert {c.size for c in candidates if c.way == way} == {1, 2, 3}
    every = {"seeds", "top", "diverse", "greedy", "bagged"}
    assert {c.way for c in candidates if c.pooling == "calibrated"} == every
    assert {c.way for c in candidates if c.weighting == "learned"} == {"top", "greedy"}
    learned = candidates_of(Request(weighting="learned"), POOL)
    assert {c.way for c in learned if c.weighting == "learned"} == every
    assert BEST_SINGLE in candidates
    assert len({c.name for c in candidates}) == len(candidates)


def test_the_prior_order_puts_the_simpler_first() -> None:
    ordered = [
        Candidate(way="seeds", size=5),
        Candidate(way="seeds", size=4),
        Candidate(way="top", size=5),
        BEST_SINGLE,
        Candidate(way="diverse", size=5),
        Candidate(way="greedy", size=5),
        Candidate(way="bagged", size=5),
        Candidate(way="seeds", size=5, pooling="calibrated"),
        Candidate(way="top", size=5, weighting="learned"),
        Candidate(way="top", size=5, weighting="learned", pooling="calibrated"),
    ]
    assert sorted(ordered, key=lambda c: c.place) == ordered


@pytest.mark.parametrize(
    ("request_", "source", "weighting"),
    [
        ({"source": "search"}, {"search"}, {"uniform", "learned"}),
        ({"source": "seeds"}, {"seeds"}, {"uniform", "learned"}),
        ({"source": "all"}, {"search", "seeds", "all"}, {"uniform", "learned"}),
        ({"source": "search", "weighting": "learned", "diversity": 1.0}, {"search"}, {"learned"}),
        ({"source": "seeds", "weighting": "learned"}, {"seeds"}, {"learned"}),
        ({"source": "all", "weighting": "uniform", "diversity": 0.0},
         {"search", "seeds", "all"}, {"uniform"}),
        ({"members": 1, "weighting": "learned"}, {"search", "seeds"}, {"learned"}),
    ],
)  # fmt: skip
def test_a_request_is_honoured(
    request_: dict[str, Any], source: set[str], weighting: set[str]
) -> None:
    request = Request(**{"members": 3, **request_})
    selection = select_ensemble(POOL, request)
    assert selection.source in source
    assert selection.weighting in weighting
    assert 1 <= len(selection.members) <= request.members
    if request.diversity:
        assert all(c.name.startswith("diverse") for c in selection.candidates)
    if request.diversity == 0.0:
        assert not any(c.name.startswith("diverse") for c in selection.candidates)
    assert selection.request == request


def test_learned_weights_are_optimal_for_what_they_are_used_on() -> None:
    for seed in range(3):
        pool = synthetic_pool(seed, sharpness=(0.3, 2, 1, 1, 3, 0.5), examples=150)
        selection = select_ensemble(pool, Request(members=4, weighting="learned"))
        assert selection.certificate is not None
        # Members below the least weight are dropped, which costs next to nothing.
        assert abs(selection.certificate.support.excess_before_temperature) <= 1e-6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"members": 0}, "got members=0"),
        ({"source": "trials"}, "source must be one of auto, search, seeds, all, got 'trials'"),
        ({"weighting": "best"}, "weighting must be one of auto, uniform, learned, got 'best'"),
        ({"diversity": -1.0}, "0 or more; got -1.0"),
        ({"diversity": float("nan")}, "0 or more; got nan"),
    ],
)
def test_impossible_requests_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PoolError, match=message):
        Request(**values)


def test_a_source_without_members_is_refused() -> None:
    with pytest.raises(PoolError, match="the pool has no seeds of the best configuration"):
        select_ensemble(synthetic_pool(0), Request(source="seeds"))
    seeds = replace(POOL, kinds=("seed",) * 9)
    with pytest.raises(PoolError, match="the pool has no trials among its 9 members"):
        select_ensemble(seeds, Request(source="search"))
    unknown = replace(POOL, kinds=("",) * 9)
    assert select_ensemble(unknown, Request(source="search")).source == "search"
    assert np.isclose(sum(m.weight for m in select_ensemble(unknown).members), 1.0)
