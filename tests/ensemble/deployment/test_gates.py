"""The release gates: verdicts at and around the limits, and their error rate."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.deployment.card import Speedup
from ensemble.deployment.gates import GateMargins, decide_gates, released_precision
from ensemble.ledger.ledger import Gate
from ensemble.ledger.predictions import Predictions, StageCost
from search.space.sections import GateSpec
from tests.pools import stage_costs


def margins(**changed: float) -> GateMargins:
    """Return the specification's margins, some of them changed."""
    return GateMargins(**(dataclasses.asdict(GateSpec()) | changed))


def holdout(disagreements: int, examples: int = 1000) -> Predictions:
    """Ensemble and fp32 are always right; int8 is wrong on the first `disagreements` examples."""
    labels = np.zeros(examples, dtype=np.int64)
    right = np.log(np.tile([0.9, 0.1], (examples, 1))).astype(np.float32)
    int8 = right.copy()
    int8[:disagreements] = int8[:disagreements, ::-1]
    stages = {"ensemble": right, "student_fp32": right, "student_int8": int8}
    return Predictions(labels=labels, stages=stages)


@pytest.mark.parametrize(
    ("errors", "verdict"), [(0, "pass"), (10, "pass"), (18, "undecided"), (60, "fail")]
)
def test_accuracy_loss_passes_fails_or_is_undecided(errors: int, verdict: str) -> None:
    gate = decide_gates(holdout(errors), stage_costs(), margins(max_accuracy_loss=0.02))[0]
    assert (gate.name, gate.verdict) == ("accuracy_loss", verdict)
    assert gate.value == pytest.approx(errors / 1000)
    assert gate.bound is not None
    assert gate.optimistic is not None
    assert gate.optimistic <= errors / 1000 < gate.bound


def test_nll_gain_passes_fails_or_is_undecided() -> None:
    # Each error costs log 9; a margin of 0.1 nats allows 4.6% of them.
    for errors, verdict in ((30, "pass"), (44, "undecided"), (80, "fail")):
        gate = decide_gates(holdout(errors), stage_costs(), margins(max_nll_gain=0.1))[1]
        assert (gate.name, gate.verdict) == ("nll_gain", verdict)
        assert gate.value == pytest.approx(errors / 1000 * np.log(9.0), rel=1e-5)


@pytest.mark.parametrize(
    ("fp32", "int8", "limit", "verdict"),
    [
        (1.2, 1.0, 1.0, "pass"),
        (1.03, 1.0, 1.0, "undecided"),
        (0.97, 1.0, 1.0, "undecided"),
        (0.9, 1.0, 1.0, "fail"),
        (3.0, 1.0, 3.5, "fail"),
    ],
)
def test_speedup_from_two_latencies(fp32: float, int8: float, limit: float, verdict: str) -> None:
    latencies = {
        "student_fp32": StageCost(latency_ms_batch1=fp32),
        "student_int8": StageCost(latency_ms_batch1=int8),
    }
    gate = decide_gates(holdout(0), latencies, margins(min_speedup=limit))[2]
    assert (gate.name, gate.verdict) == ("speedup", verdict)
    assert gate.value == pytest.approx(fp32 / int8)
    assert gate.bound == pytest.approx(0.95 * fp32 / int8)


@pytest.mark.parametrize(
    ("value", "bound", "verdict"),
    [
        (1.5, 1.3, "pass"),
        (1.2, 0.95, "undecided"),
        (0.9, 0.7, "undecided"),
        (0.9, 0.85, "fail"),
    ],
)
def test_speedup_from_paired_timings(value: float, bound: float, verdict: str) -> None:
    measured = Speedup(value=value, bound=bound, level=0.95, repeats=50)
    gate = decide_gates(holdout(0), stage_costs(), margins(), speedup=measured)[2]
    assert (gate.value, gate.bound, gate.verdict) == (value, bound, verdict)


def test_shrink_is_exact() -> None:
    for limit, verdict in ((4000 / 1500, "pass"), (2.7, "fail")):
        gate = decide_gates(holdout(0), stage_costs(), margins(min_shrink=limit))[3]
        assert (gate.name, gate.verdict) == ("shrink", verdict)
        assert gate.value == gate.bound == gate.optimistic == 4000 / 1500


def test_missing_figures_are_undecided_and_block_the_release() -> None:
    decided = decide_gates(holdout(0), {}, margins())
    assert [gate.verdict for gate in decided] == ["pass", "pass", "undecided", "undecided"]
    assert decided[2].value is None
    assert released_precision(decided) == "fp32"
    alone = Predictions(
        labels=np.zeros(50, int),
        stages={"student_int8": holdout(0, 50).stages["student_int8"]},
    )
    assert [gate.verdict for gate in decide_gates(alone, stage_costs(), margins())][:2] == [
        "undecided", "undecided",
    ]  # fmt: skip


def test_int8_is_released_only_if_every_gate_passes() -> None:
    passing = decide_gates(holdout(0), stage_costs(), margins())
    assert {gate.verdict for gate in passing} == {"pass"}
    assert released_precision(passing) == "int8"
    undecided = dataclasses.replace(passing[0], verdict="undecided")
    assert released_precision([*passing[1:], undecided]) == "fp32"
    assert (
        released_precision([*passing[1:], dataclasses.replace(passing[0], verdict="fail")])
        == "fp32"
    )
    assert released_precision([]) == "fp32"


def test_without_an_int8_student_there_are_no_gates() -> None:
    stages = {"ensemble": holdout(0).stages["ensemble"]}
    assert decide_gates(Predictions(labels=np.zeros(1000, int), stages=stages), {}, margins()) == ()


@given(errors=st.integers(0, 80), limit=st.floats(0.0, 0.2), more=st.floats(0.0, 0.2))
def test_a_wider_margin_is_never_worse(errors: int, limit: float, more: float) -> None:
    def decide(margin: float) -> Gate:
        return decide_gates(holdout(errors), stage_costs(), margins(max_accuracy_loss=margin))[0]

    order = ("fail", "undecided", "pass")
    assert order.index(decide(limit + more).verdict) >= order.index(decide(limit).verdict)


def test_a_student_at_the_limit_passes_at_most_once_in_twenty() -> None:
    # The true loss equals the limit. At a true level of 5%, more than 28 of 300 pass in one of
    # 1,600 repetitions of this test; with this seed 17 do.
    rng = np.random.default_rng(0)
    passed = 0
    for _ in range(300):
        errors = int(rng.binomial(1000, 0.05))
        wide = margins(max_accuracy_loss=0.05)
        passed += decide_gates(holdout(errors), stage_costs(), wide)[0].verdict == "pass"
    assert passed <= 28
