import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.text.ledger import difference_of, gates_verdict, row_of, shipped_stage, verdict
from tests.synthetic.ledger_values import made_comparison, made_gate, made_ledger, made_row

finite = st.floats(-1e12, 1e12)


@given(finite, finite, st.sampled_from(["accuracy", "balanced_accuracy", "nll", "brier"]))
def test_the_verdict_reverses_with_the_difference(a: float, b: float, metric: str) -> None:
    low, high = sorted((a, b))
    item = made_comparison("x", "y", metric, (low + high) / 2, (low, high))
    ledger = made_ledger(differences=(item,))
    reversed_item = difference_of(ledger, "y", "x", metric)
    assert reversed_item is not None
    assert reversed_item.value == -item.value
    opposite = {"better": "worse", "worse": "better"}
    assert verdict(reversed_item) == opposite.get(verdict(item), verdict(item))
    assert (verdict(item) == "not distinguishable") == (low <= 0 <= high)
    assert difference_of(ledger, "x", "y", metric) == item
    assert difference_of(ledger, "x", "z", metric) is None


def test_an_exact_test_in_the_ledger_overrules_the_interval() -> None:
    pair = ("x", "y", "accuracy", 0.01, (0.001, 0.02))
    assert verdict(made_comparison(*pair, verdict="not distinguishable")) == "not distinguishable"
    assert verdict(made_comparison(*pair)) == "better"
    assert verdict(made_comparison("x", "y", "nll", 0.01, (0.001, 0.02))) == "worse"


@pytest.mark.parametrize(
    ("verdicts", "decision"),
    [
        (["pass", "pass"], "pass"),
        (["pass", "undecided"], "undecided"),
        (["fail", "pass", "undecided"], "fail"),
        ([], "none"),
    ],
)
def test_gates_pass_only_together(verdicts: list[str], decision: str) -> None:
    assert gates_verdict(made_ledger(gates=tuple(map(made_gate, verdicts)))) == decision


def test_the_released_stage_ships_if_it_has_a_row() -> None:
    rows = made_row("student_fp32"), made_row("best_single_int8")
    assert shipped_stage(made_ledger(*rows, released="best_single_int8")) == "best_single_int8"
    assert shipped_stage(made_ledger(*rows, released="student_int8")) is None
    assert shipped_stage(made_ledger(*rows, released="none")) is None


def test_only_rows_on_test_count() -> None:
    ledger = made_ledger(made_row("ensemble", split="holdout"), made_row("best_single"))
    assert row_of(ledger, "ensemble") is None
    assert row_of(ledger, "best_single") == ledger.rows[1]
    assert row_of(None, "ensemble") is None
