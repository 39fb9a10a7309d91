"""The selected ensemble: contract, golden file, and honest scores.

The golden file is written by `python -m tests.ensemble.selection.test_decision`, once per schema
version.
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

from common.errors import PoolError, RunError
from common.files import dump_json
from common.parsing import to_mapping
from common.statistics.metrics import apply_temperature, nll
from ensemble.selection.candidates import Request
from ensemble.selection.decision import select_ensemble
from ensemble.selection.pool import Pool, Skipped
from ensemble.selection.pool_file import load_pool
from ensemble.selection.selection import Member, Selection, read_selection
from tests.docs import ROOT
from tests.pools import synthetic_pool

GOLDEN = ROOT / "tests" / "golden" / "selection.json"
METRICS = {"accuracy", "nll", "brier", "ece"}


def golden_pool() -> Pool:
    pool = synthetic_pool(11, skills=(1.0, 1.5, 2.0, 1.2, 1.8, 1.6, 1.7, 1.7), seeds=2)
    return replace(pool, skipped=(Skipped(name="t0009", reason="its predictions are not finite"),))


def weights_of(selection: Selection, pool: Pool) -> np.ndarray:
    weights = np.zeros(len(pool.names))
    for member in selection.members:
        weights[pool.names.index(member.name)] = member.weight
    return weights


def test_the_selection_equals_the_golden_file() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert_close(to_mapping(select_ensemble(golden_pool(), Request(members=3))), golden)


def assert_close(actual: Any, expected: Any) -> None:
    """Assert equality except for digits that differ between machines.

    The last digits of numbers, differences in NLL by 5e-6, and digits inside texts may differ.
    """
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key in expected:
            assert_close(actual[key], expected[key])
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for item, expected_item in zip(actual, expected, strict=True):
            assert_close(item, expected_item)
    elif isinstance(expected, float):
        assert actual == pytest.approx(expected, rel=1e-3, abs=5e-6)
    elif isinstance(expected, str):
        assert re.sub(r"\d", "#", actual) == re.sub(r"\d", "#", expected)
    else:
        assert actual == expected


def test_a_selection_is_read_as_it_was_written(tmp_path: Path) -> None:
    selection = select_ensemble(golden_pool(), Request(members=3))
    path = tmp_path / "selection.json"
    path.write_text(dump_json(to_mapping(selection)))
    assert read_selection(path) == selection
    path.write_text(dump_json(to_mapping(replace(selection, schema=99))))
    with pytest.raises(RunError, match="schema 99"):
        read_selection(path)


@settings(max_examples=5)
@given(seed=st.integers(0, 10_000), members=st.integers(1, 4), seeds=st.integers(0, 3))
def test_every_selection_keeps_the_contract(seed: int, members: int, seeds: int) -> None:
    pool = synthetic_pool(seed, examples=40, seeds=seeds)
    selected = select_ensemble(pool, Request(members=members), seed=seed)
    selection = to_mapping(selected)
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
    else:
        named = [member["name"] for member in selection["seeds_ensemble"]["members"]]
        assert named == [f"s{n:02d}" for n in range(size)]
        assert set(selection["seeds_ensemble"]) == {*METRICS, "members", "temperature"}
    assert set(selection["order"]) <= set(pool.names)
    kinds = {"seeds" if m["name"].startswith("s") else "search" for m in selection["members"]}
    assert selection["source"] == (kinds.pop() if len(kinds) == 1 else "all")
    temperatures = {member["temperature"] is None for member in selection["members"]}
    assert temperatures == {selection["pooling"] == "raw"}
    assert selection["candidate"] in {c["name"] for c in selection["candidates"]}
    assert set(selection["predictions"]) == {member["name"] for member in selection["members"]}
    assert select_ensemble(pool, Request(members=members), seed=seed) == selected


def test_certificates_equal_their_definition() -> None:
    pool = synthetic_pool(4, examples=200)
    selection = select_ensemble(pool)
    weights = weights_of(selection, pool)
    probs = np.exp(pool.stack().astype(float))
    pooled = np.einsum("m,mnk->nk", weights, probs)[np.arange(200), pool.labels]
    ratios = [np.mean(probs[m][np.arange(200), pool.labels] / pooled) for m in range(6)]
    assert selection.gap_pool == pytest.approx(max(ratios) - 1.0)
    support = np.flatnonzero(weights)
    assert selection.gap_support == pytest.approx(max(np.array(ratios)[support]) - 1.0)


def test_learned_weights_ship_where_they_win() -> None:
    # One member is far better than the others, which are equally confident.
    pool = synthetic_pool(
        0, skills=[2.0] + [1.0] * 4, sharpness=[2.0] * 5, examples=600, common=0.4
    )
    selection = select_ensemble(pool, Request(weighting="learned"))
    assert selection.weighting == "learned"
    assert selection.members[0].name == "t0000"
    assert 0.5 < selection.members[0].weight < 1.0
    assert selection.metrics.holdout.nll < selection.uniform_top_k.nll


@settings(max_examples=5)
@given(seed=st.integers(0, 10_000), pooling=st.sampled_from(["raw", "calibrated"]))
def test_what_ships_is_what_its_members_weights_and_temperatures_give(
    seed: int, pooling: str
) -> None:
    sharpness = [0.3, 3.0, 1.0, 2.0, 0.5, 1.0] if pooling == "calibrated" else None
    pool = synthetic_pool(seed, examples=100, sharpness=sharpness)
    selection = select_ensemble(pool, Request(members=3))
    probs = sum(
        m.weight * np.exp(m.as_pooled(pool.log_probs[pool.names.index(m.name)]).astype(float))
        for m in selection.members
    )
    shipped = apply_temperature(np.log(probs), selection.temperature)
    assert selection.certificate is not None
    assert nll(shipped, pool.labels) == pytest.approx(selection.certificate.nll, abs=1e-5)


def test_cross_fitted_scores_are_not_optimistic() -> None:
    # Members without any skill: those selected in hindsight look better than chance. With 60
    # examples and 3 classes the best of 80 has an accuracy near 0.47 by luck alone.
    pool = synthetic_pool(3, skills=[0.0] * 80, examples=60, common=0.0)
    selection = select_ensemble(pool)
    in_hindsight = max(np.mean(p.argmax(axis=1) == pool.labels) for p in pool.log_probs)
    assert in_hindsight > 0.45
    assert selection.best_single.accuracy < 0.40
    assert selection.metrics.holdout.accuracy < 0.40
    assert selection.metrics.holdout.nll > np.log(3) - 0.02


def test_the_order_of_the_members_does_not_matter() -> None:
    pool = synthetic_pool(6, examples=60)
    turn = np.random.default_rng(0).permutation(6)
    turned = replace(
        pool, names=tuple(pool.names[m] for m in turn), log_probs=pool.stack(turn.tolist())
    )
    first, second = select_ensemble(pool), select_ensemble(turned)
    np.testing.assert_allclose(weights_of(first, pool), weights_of(second, pool), atol=1e-6)
    assert first.order == second.order
    assert first.metrics.holdout.nll == pytest.approx(second.metrics.holdout.nll)


def test_the_smallest_pools_are_selected_from() -> None:
    alone = select_ensemble(synthetic_pool(0, skills=[1.0], examples=10))
    assert alone.members == (Member(name="t0000", weight=1.0),)
    assert (alone.gap_support, alone.gap_pool) == (0.0, 0.0)
    assert alone.diversity.disagreement is None
    # One class has a single example, another has none.
    pool = synthetic_pool(1, examples=12, classes=4)
    rare = select_ensemble(replace(pool, labels=np.array([0] * 6 + [1] * 5 + [3])))
    dump_json(to_mapping(rare))
    assert rare.examples == 12


def test_a_perfect_pool_is_not_certain() -> None:
    pool = synthetic_pool(0, skills=[50.0, 50.0], examples=30)
    selection = select_ensemble(pool)
    dump_json(to_mapping(selection))
    assert selection.metrics.holdout.accuracy == 1.0
    # Thirty examples without an error do not prove an error rate of zero.
    assert 0.01 < selection.metrics.holdout.nll < 0.1


def test_a_pool_of_votes_can_be_selected_from(tmp_path: Path) -> None:
    pool = synthetic_pool(2, examples=200)
    votes = np.eye(3)[pool.stack().argmax(axis=2)]
    np.savez(tmp_path / "votes.npz", probs=votes, labels=pool.labels)
    selection = select_ensemble(load_pool(tmp_path / "votes.npz"))
    dump_json(to_mapping(selection))
    accuracies = (pool.stack().argmax(axis=2) == pool.labels).mean(axis=1)
    assert len(selection.members) > 1
    assert selection.metrics.holdout.nll < selection.best_single.nll
    assert selection.best_single.name == f"m{accuracies.argmax()}"


def test_unknown_seconds_are_none_and_skipped_members_are_named() -> None:
    selection = select_ensemble(replace(golden_pool(), seconds=np.array([1.0] * 7 + [np.nan])))
    assert selection.compute["pool_seconds"] is None
    assert selection.compute["best_single_seconds"] == 1.0
    skipped = Skipped(name="t0009", reason="its predictions are not finite")
    assert selection.skipped == (skipped,)


def test_duplicate_members_are_not_counted_twice() -> None:
    pool = synthetic_pool(8, skills=(1.5, 1.5, 1.5))
    twins = replace(
        pool, names=("a", "b", "c", "d"), kinds=("",) * 4, seconds=np.ones(4),
        log_probs=pool.stack([0, 1, 2, 0]),
    )  # fmt: skip
    selection = select_ensemble(twins)
    names = {member.name for member in selection.members}
    assert not {"a", "d"} <= names
    assert selection.diversity.near_duplicates == ()


def test_a_file_of_an_earlier_version_is_read_as_raw_pooling(tmp_path: Path) -> None:
    path = ROOT / "results" / "digits-demo" / "selection.json"
    earlier = json.loads(path.read_text())
    assert "pooling" not in earlier
    selection = read_selection(path)
    assert selection.pooling == "raw"
    assert selection.certificate is None
    log_probs = synthetic_pool(0).log_probs[0]
    for member in selection.members:
        assert member.as_pooled(log_probs) is log_probs


def test_pooled_stages_name_the_members_of_each_stage() -> None:
    selection = select_ensemble(golden_pool(), Request(members=2))
    stages = selection.pooled_stages()
    assert stages["ensemble"] == selection.members
    assert stages["best_single"] == (Member(name=selection.best_single.name, weight=1.0),)
    assert list(stages) == ["best_single", "uniform_top_k", "seeds_ensemble", "ensemble"]
    without_seeds = replace(selection, seeds_ensemble=None).pooled_stages()
    assert list(without_seeds) == ["best_single", "uniform_top_k", "ensemble"]


@pytest.mark.parametrize(
    ("pool", "members", "message"),
    [
        (synthetic_pool(0), 0, "got members=0"),
        (synthetic_pool(0, examples=9), 5, "at least 10 labelled examples.*got 9"),
    ],
)
def test_impossible_requests_are_refused(pool: Pool, members: int, message: str) -> None:
    with pytest.raises(PoolError, match=message):
        select_ensemble(pool, Request(members=members))


def test_predictions_that_are_not_finite_are_refused() -> None:
    pool = synthetic_pool(0)
    pool.log_probs[2][5, 1] = -np.inf
    with pytest.raises(PoolError, match="'t0002' has predictions that are not finite"):
        select_ensemble(pool)


if __name__ == "__main__":
    GOLDEN.write_text(dump_json(to_mapping(select_ensemble(golden_pool(), Request(members=3)))))
