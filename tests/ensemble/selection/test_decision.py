"""The decision: what ships, what is reported, and that the report is honest.

Written by `python -m tests.ensemble.selection.test_decision`, once per schema version.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PoolError
from common.files import dump_json
from ensemble.selection.decision import decide
from ensemble.selection.pool import Pool, Skipped, load_pool
from tests.docs import ROOT
from tests.pools import synthetic_pool

GOLDEN = ROOT / "tests" / "golden" / "selection.json"
METRICS = {"accuracy", "nll", "brier", "ece"}


def golden_pool() -> Pool:
    pool = synthetic_pool(11, skills=(1.0, 1.5, 2.0, 1.2, 1.8, 1.6, 1.7, 1.7), seeds=2)
    return replace(pool, skipped=(Skipped(name="t0009", reason="its predictions are not finite"),))


def weights_of(selection: dict[str, Any], pool: Pool) -> np.ndarray:
    weights = np.zeros(len(pool.names))
    for member in selection["members"]:
        weights[pool.names.index(member["name"])] = member["weight"]
    return weights


def test_the_mapping_is_as_in_the_golden_file() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert_close(decide(golden_pool(), members=3, seed=0), golden)


def assert_close(found: Any, expected: Any) -> None:
    """Equal, but for digits that differ between machines: the last ones, and those in texts."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_close(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    elif isinstance(expected, str):
        assert re.sub(r"\d", "#", found) == re.sub(r"\d", "#", expected)
    else:
        assert found == expected


@settings(max_examples=5)
@given(seed=st.integers(0, 10_000), members=st.integers(1, 4), seeds=st.integers(0, 3))
def test_every_decision_keeps_the_contract(seed: int, members: int, seeds: int) -> None:
    pool = synthetic_pool(seed, examples=40, seeds=seeds)
    selection = decide(pool, members=members, seed=seed)
    dump_json(selection)  # finite, and nothing that JSON cannot hold
    weights = [member["weight"] for member in selection["members"]]
    assert 1 <= len(weights) <= members
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1.0, abs=1e-9)
    if selection["weighting"] == "uniform":
        assert weights == pytest.approx([1 / len(weights)] * len(weights))
    assert set(selection["metrics"]["holdout"]) == METRICS
    assert {*METRICS, "name", "temperature"} == set(selection["best_single"])
    size = len(weights)
    assert len(selection["uniform_top_k"]["members"]) == size
    if seeds < size:
        assert selection["seeds_ensemble"] is None
        assert selection["source"] == "search"
    else:
        named = [member["name"] for member in selection["seeds_ensemble"]["members"]]
        assert named == [f"s{n:02d}" for n in range(size)]
        assert set(selection["seeds_ensemble"]) == {*METRICS, "members", "temperature"}
    assert set(selection["order"]) <= set(pool.names)
    assert decide(pool, members=members, seed=seed) == selection


def test_the_certificate_is_the_one_defined() -> None:
    pool = synthetic_pool(4, examples=200)
    selection = decide(pool)
    weights = weights_of(selection, pool)
    probs = np.exp(pool.log_probs.astype(float))
    pooled = np.einsum("m,mnk->nk", weights, probs)[np.arange(200), pool.labels]
    ratios = [np.mean(probs[m][np.arange(200), pool.labels] / pooled) for m in range(6)]
    assert selection["gap_pool"] == pytest.approx(max(ratios) - 1.0)
    support = np.flatnonzero(weights)
    assert selection["gap_support"] == pytest.approx(max(np.array(ratios)[support]) - 1.0)


def test_learned_weights_ship_where_they_win() -> None:
    # One member is far better than the others, which are as sure of themselves.
    pool = synthetic_pool(
        0, skills=[2.0] + [1.0] * 4, sharpness=[2.0] * 5, examples=300, common=0.4
    )
    selection = decide(pool)
    assert selection["weighting"] == "learned"
    assert "learned gains +0.00" in selection["weighting_reason"]
    assert max(selection["gap_support"], selection["gap_pool"]) <= 1e-6
    assert selection["members"][0]["name"] == "t0000"
    assert 0.6 < selection["members"][0]["weight"] < 1.0
    assert selection["metrics"]["holdout"]["nll"] < selection["uniform_top_k"]["nll"]


def test_uniform_weights_ship_where_members_are_alike() -> None:
    selection = decide(synthetic_pool(1, skills=[1.5] * 5, examples=300))
    assert selection["weighting"] == "uniform"
    assert "learned gains -0.0" in selection["weighting_reason"]


def test_seeds_ship_where_the_search_does_not_beat_them() -> None:
    # Twenty-four equals: the four chosen by their luck are no better than four seeds.
    alike = decide(synthetic_pool(1, skills=[1.5] * 24, examples=100, seeds=4), members=4)
    assert (alike["source"], alike["weighting"]) == ("seeds", "uniform")
    assert "uniform gains -0.0" in alike["source_reason"]
    names = [member["name"] for member in alike["members"]]
    assert names == [f"s{n:02d}" for n in range(len(names))]
    assert alike["metrics"]["holdout"]["nll"] > 0.0
    better = decide(
        synthetic_pool(0, skills=[3.0] * 4 + [1.0] * 4, examples=300, seeds=4), members=4
    )
    assert better["source"] == "search"
    assert all(member["name"].startswith("t") for member in better["members"])
    gain = next(
        c for c in better["comparisons"] if (c["b"], c["metric"]) == ("seeds_ensemble", "nll")
    )
    assert gain["value"] < 0.0
    assert gain["verdict"] == "distinguishable"


def test_cross_fitted_figures_do_not_flatter() -> None:
    # Members that know nothing: chosen in hindsight they look better than chance. With 60
    # examples and 3 classes the best of 80 has an accuracy near 0.47 by luck alone.
    pool = synthetic_pool(3, skills=[0.0] * 80, examples=60, common=0.0)
    selection = decide(pool)
    in_hindsight = max(np.mean(p.argmax(axis=1) == pool.labels) for p in pool.log_probs)
    assert in_hindsight > 0.45
    assert selection["best_single"]["accuracy"] < 0.40
    assert selection["metrics"]["holdout"]["accuracy"] < 0.40
    assert selection["metrics"]["holdout"]["nll"] > np.log(3) - 0.02


def test_renaming_the_members_changes_nothing_else() -> None:
    pool = synthetic_pool(6, examples=60)
    turn = np.random.default_rng(0).permutation(6)
    turned = replace(pool, names=tuple(pool.names[m] for m in turn), log_probs=pool.log_probs[turn])
    one, other = decide(pool), decide(turned)
    np.testing.assert_allclose(weights_of(one, pool), weights_of(other, pool), atol=1e-6)
    assert one["order"] == other["order"]
    assert one["metrics"]["holdout"]["nll"] == pytest.approx(other["metrics"]["holdout"]["nll"])


def test_the_smallest_pools() -> None:
    alone = decide(synthetic_pool(0, skills=[1.0], examples=10))
    assert alone["members"] == [{"name": "t0000", "weight": 1.0}]
    assert (alone["gap_support"], alone["gap_pool"]) == (0.0, 0.0)
    assert alone["diversity"]["disagreement"] is None
    # A class with a single example, and one with none.
    pool = synthetic_pool(1, examples=12, classes=4)
    rare = decide(replace(pool, labels=np.array([0] * 6 + [1] * 5 + [3])))
    dump_json(rare)
    assert rare["examples"] == 12


def test_a_perfect_pool() -> None:
    pool = synthetic_pool(0, skills=[50.0, 50.0], examples=30)
    selection = decide(pool)
    dump_json(selection)
    assert selection["metrics"]["holdout"]["accuracy"] == 1.0
    # Thirty examples without an error do not show that there is none.
    assert 0.01 < selection["metrics"]["holdout"]["nll"] < 0.1


def test_a_pool_of_votes(tmp_path: Path) -> None:
    pool = synthetic_pool(2, examples=200)
    votes = np.eye(3)[pool.log_probs.argmax(axis=2)]
    np.savez(tmp_path / "votes.npz", probs=votes, labels=pool.labels)
    selection = decide(load_pool(tmp_path / "votes.npz"))
    dump_json(selection)
    accuracies = (pool.log_probs.argmax(axis=2) == pool.labels).mean(axis=1)
    assert len(selection["members"]) > 1
    assert selection["metrics"]["holdout"]["nll"] < selection["best_single"]["nll"]
    assert selection["best_single"]["name"] == f"m{accuracies.argmax()}"


def test_unknown_seconds_are_null_and_skipped_members_are_named() -> None:
    selection = decide(replace(golden_pool(), seconds=np.array([1.0] * 7 + [np.nan])))
    assert selection["compute"]["pool_seconds"] is None
    assert selection["compute"]["best_single_seconds"] == 1.0
    assert selection["skipped"] == [{"name": "t0009", "reason": "its predictions are not finite"}]


def test_duplicates_are_reported_and_not_counted_twice() -> None:
    pool = synthetic_pool(8, skills=(1.5, 1.5, 1.5))
    twins = replace(
        pool, names=("a", "b", "c", "d"), kinds=("",) * 4, seconds=np.ones(4),
        log_probs=pool.log_probs[[0, 1, 2, 0]],
    )  # fmt: skip
    selection = decide(twins)
    names = {member["name"] for member in selection["members"]}
    assert not {"a", "d"} <= names
    assert selection["diversity"]["near_duplicates"] == []


@pytest.mark.parametrize(
    ("pool", "members", "message"),
    [
        (synthetic_pool(0), 0, "at least 1 member, got members=0"),
        (synthetic_pool(0, examples=9), 5, "at least 10 labelled examples.*got 9"),
    ],
)
def test_impossible_requests(pool: Pool, members: int, message: str) -> None:
    with pytest.raises(PoolError, match=message):
        decide(pool, members=members)


def test_predictions_that_are_not_finite() -> None:
    pool = synthetic_pool(0)
    pool.log_probs[2, 5, 1] = -np.inf
    with pytest.raises(PoolError, match="'t0002' has predictions that are not finite"):
        decide(pool)


if __name__ == "__main__":
    GOLDEN.write_text(dump_json(decide(golden_pool(), members=3, seed=0)))
