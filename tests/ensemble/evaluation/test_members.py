"""Pooled members: their probabilities are averaged, and their costs add up."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import RunError
from ensemble.evaluation.members import member_costs, pool_members, pooled_cost
from ensemble.ledger.predictions import StageCost
from ensemble.selection.selection import Member
from tests.trainables.test_records import RECORD, START
from trainables.recipe import Recipe
from trainables.records import RunFolder, write_record, write_start

MEMBERS = (Member(name="a", weight=0.25), Member(name="b", weight=0.75))


def test_a_pool_is_the_weighted_mean_of_its_members() -> None:
    probs = {
        "a": np.array([[0.8, 0.2]]),
        "b": np.array([[0.4, 0.6]]),
        "c": np.array([[0.0, 1.0]]),
    }
    with np.errstate(divide="ignore"):
        log_probs = {name: np.log(value).astype(np.float32) for name, value in probs.items()}
    np.testing.assert_allclose(np.exp(pool_members(MEMBERS, log_probs)), [[0.5, 0.5]], rtol=1e-6)


def test_members_with_temperatures_are_pooled_at_them() -> None:
    logits = {"a": np.array([[2.0, 0.0]]), "b": np.array([[0.0, 1.0]])}
    members = [replace(MEMBERS[0], temperature=0.5), replace(MEMBERS[1], temperature=2.0)]
    scaled = [np.exp(logits["a"] / 0.5), np.exp(logits["b"] / 2.0)]
    expected = sum(
        weight * value / value.sum() for weight, value in zip((0.25, 0.75), scaled, strict=True)
    )
    log_probs = {
        name: (value - np.log(np.exp(value).sum())).astype(np.float32)
        for name, value in logits.items()
    }
    np.testing.assert_allclose(np.exp(pool_members(members, log_probs)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "alike"),
    [
        ({"width": 16}, False),
        ({"middle": 4}, False),
        ({"tta": "mirror"}, False),
        ({"input_size": 24}, False),
        ({"dropout": 0.3}, True),
        ({"init": "default"}, True),
        ({"lr_per_1024": 3.0}, True),
    ],
)
def test_members_share_a_measurement_only_if_they_do_the_same_work(
    values: dict[str, Any], alike: bool, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    for name, recipe in (("a", Recipe(width=8)), ("b", Recipe(**{"width": 8, **values}))):
        write_start(folder.trial(name), replace(START, trial=name, recipe=recipe))
        write_record(folder.trial(name), replace(RECORD, trial=name))
    measured: list[str] = []

    def measure(_: RunFolder, name: str, *__: Any) -> StageCost:
        measured.append(name)
        return StageCost(params=1)

    images = np.zeros((1, 8, 8, 3), np.uint8)
    member_costs(folder, ["a", "b"], images, classes=2, measure=measure)
    assert measured == (["a"] if alike else ["a", "b"])


def test_the_cost_of_a_pool_is_the_sum_over_its_members() -> None:
    costs = {
        "a": StageCost(params=10, bytes=40, latency_ms_batch1=1.0, images_per_second=300.0,
                       train_seconds=5.0),
        "b": StageCost(params=20, bytes=80, latency_ms_batch1=2.0, images_per_second=600.0,
                       train_seconds=7.0),
        "c": StageCost(params=1000),
    }  # fmt: skip
    cost = pooled_cost(MEMBERS, costs)
    assert (cost.params, cost.bytes, cost.train_seconds) == (30, 120, 12.0)
    assert cost.latency_ms_batch1 == pytest.approx(3.0)
    # 1/300 + 1/600 seconds per image
    assert cost.images_per_second == pytest.approx(200.0)


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    costs = {"a": StageCost(params=10, bytes=40, images_per_second=1.0), "b": StageCost(params=20)}
    cost = pooled_cost(MEMBERS, costs)
    assert cost == StageCost(params=30)


def test_a_member_without_an_onnx_form_has_unknown_costs(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name, width in (("a", 8), ("b", 16)):
        write_start(folder.trial(name), replace(START, trial=name, recipe=Recipe(width=width)))
        write_record(folder.trial(name), replace(RECORD, trial=name))

    def measure(_: RunFolder, name: str, *__: Any) -> StageCost:
        if name == "a":
            raise NotImplementedError("no ONNX operator for it")
        return StageCost(params=1, bytes=2)

    images = np.zeros((1, 8, 8, 3), np.uint8)
    costs = member_costs(folder, ["a", "b"], images, classes=2, measure=measure)
    seconds = RECORD.seconds
    assert costs["a"] == StageCost(params=RECORD.params, train_seconds=seconds)
    assert costs["b"] == StageCost(params=1, bytes=2, train_seconds=seconds)

    def damaged(*_: Any) -> StageCost:
        raise RunError("weights.safetensors is damaged")

    with pytest.raises(RunError, match="damaged"):
        member_costs(folder, ["a"], images, classes=2, measure=damaged)
