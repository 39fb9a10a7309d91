import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.text.ledger import difference_of, gates_verdict, shipped_stage, verdict

finite = st.floats(-1e12, 1e12)


@given(finite, finite, st.sampled_from(["accuracy", "balanced_accuracy", "nll", "brier"]))
def test_the_verdict_reverses_with_the_difference(a: float, b: float, metric: str) -> None:
    low, high = sorted((a, b))
    item = {
        "a": "x",
        "b": "y",
        "metric": metric,
        "value": (low + high) / 2,
        "interval": [low, high],
    }
    reversed_item = difference_of({"differences": [item]}, "y", "x", metric)
    assert reversed_item is not None
    opposite = {"better": "worse", "worse": "better"}
    assert verdict(reversed_item) == opposite.get(verdict(item), verdict(item))
    assert (verdict(item) == "not distinguishable") == (low <= 0 <= high)


def test_an_exact_test_in_the_ledger_overrules_the_interval() -> None:
    item = {"metric": "accuracy", "interval": [0.001, 0.02], "verdict": "not distinguishable"}
    assert verdict(item) == "not distinguishable"
    assert verdict({**item, "verdict": "distinguishable"}) == "better"
    assert verdict({**item, "verdict": "distinguishable", "metric": "nll"}) == "worse"


@pytest.mark.parametrize(
    ("verdicts", "decision", "stage"),
    [
        (["pass", "pass"], "pass", "student_int8"),
        (["pass", "undecided"], "undecided", "student_fp32"),
        (["fail", "pass", "undecided"], "fail", "student_fp32"),
        ([], "none", "student_fp32"),
    ],
)
def test_int8_ships_only_if_every_gate_passes(
    verdicts: list[str], decision: str, stage: str
) -> None:
    rows = [{"stage": "student_fp32"}, {"stage": "student_int8"}]
    ledger = {"gates": [{"verdict": verdict} for verdict in verdicts], "rows": rows}
    assert gates_verdict(ledger) == decision
    assert shipped_stage(ledger) == stage
    assert shipped_stage({**ledger, "rows": []}) is None
