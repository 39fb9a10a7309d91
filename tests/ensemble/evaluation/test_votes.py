"""The ledger's voting rows: members, weights, predictions."""

from dataclasses import replace

import numpy as np
import pytest

from common.statistics.metrics import nll
from ensemble.evaluation.votes import Votes
from ensemble.selection.candidates import Request
from ensemble.selection.decision import select_ensemble
from ensemble.selection.selection import Member, Selection
from ensemble.selection.voting import hard_vote, soft_vote, weighted_vote
from tests.pools import synthetic_pool

POOL = synthetic_pool(examples=300)
STACK = np.stack([POOL.log_probs[member] for member in range(len(POOL.names))])
HOLDOUT = dict(zip(POOL.names, STACK, strict=True))
SELECTION = replace(
    select_ensemble(POOL, Request(members=3)),
    members=tuple(Member(name=name, weight=1 / 3) for name in POOL.names[:3]),
    weighting="uniform",
)


def fitted(selection: Selection = SELECTION) -> Votes:
    return Votes.fit(selection, HOLDOUT, POOL.labels)


def test_votes_are_those_of_the_ensembles_members() -> None:
    log_probs, stack = fitted().log_probs(HOLDOUT), STACK[:3]
    assert set(log_probs) == set(fitted().stages())
    np.testing.assert_allclose(log_probs["soft_vote"], soft_vote(stack), atol=1e-5)
    np.testing.assert_array_equal(log_probs["hard_vote"].argmax(axis=1), hard_vote(stack).labels)
    for values in log_probs.values():
        np.testing.assert_allclose(np.exp(values).sum(axis=1), 1.0, atol=1e-5)
        assert np.isfinite(nll(values, POOL.labels))


def test_learned_weights_have_the_lowest_nll_on_holdout() -> None:
    stack, rng = STACK[:3], np.random.default_rng(0)
    learned = nll(fitted().log_probs(HOLDOUT)["weighted_vote"], POOL.labels)
    for weights in rng.dirichlet(np.ones(3), size=200):
        assert learned <= nll(weighted_vote(stack, weights), POOL.labels) + 1e-6


def test_weights_that_the_selection_learned_are_kept() -> None:
    weights = (0.5, 0.3, 0.2)
    members = tuple(
        replace(member, weight=weight)
        for member, weight in zip(SELECTION.members, weights, strict=True)
    )
    votes = fitted(replace(SELECTION, members=members, weighting="learned"))
    assert votes.learned == weights
    assert [member.weight for member in votes.stages()["weighted_vote"]] == list(weights)
    assert [member.weight for member in votes.stages()["hard_vote"]] == pytest.approx([1 / 3] * 3)


def test_members_vote_at_their_own_temperatures() -> None:
    members = tuple(replace(member, temperature=2.0) for member in SELECTION.members)
    votes = fitted(replace(SELECTION, members=members))
    scaled = np.stack([members[0].as_pooled(values) for values in STACK[:3]])
    np.testing.assert_allclose(votes.log_probs(HOLDOUT)["soft_vote"], soft_vote(scaled), atol=1e-5)


def test_a_single_member_casts_no_vote() -> None:
    votes = fitted(replace(SELECTION, members=(Member(name=POOL.names[0], weight=1.0),)))
    assert votes.stages() == votes.log_probs(HOLDOUT) == {}
