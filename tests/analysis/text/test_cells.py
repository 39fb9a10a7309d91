from analysis.text.cells import difference_cells, gate_cells, stage_cells
from common.formats import short_duration
from tests.synthetic.ledger_values import made_comparison, made_gate, made_ledger, made_row

ROW = made_row(
    "student_int8", accuracy=0.9849, accuracy_interval=(0.972, 0.992), ece=0.0043,
    params=163_000, bytes=181_000, latency_ms_batch1=0.037, images_per_second=40_300.0,
    train_seconds=185.0, agreement_with_ensemble=0.99,
)  # fmt: skip


def test_a_row_is_formatted_with_the_decimals_of_the_test_size() -> None:
    (cells,) = stage_cells(made_ledger(ROW, images=597))
    assert (cells.stage, cells.accuracy, cells.interval) == ("int8 student", "98.5", "97.2–99.2")
    assert (cells.ece, cells.size, cells.params) == ("0.004", "181 kB", "163k")
    assert (cells.latency_ms, cells.images_per_second) == ("0.04", "40.3k")
    assert (cells.training, cells.agreement) == ("3 min 05 s", "99.0")
    (precise,) = stage_cells(made_ledger(ROW, images=10_000), time_format=short_duration)
    assert (precise.accuracy, precise.training) == ("98.49", "3m05s")
    (unmeasured,) = stage_cells(made_ledger(made_row()))
    assert (unmeasured.size, unmeasured.latency_ms, unmeasured.training) == ("–", "–", "–")


def test_accuracies_differ_in_points_and_losses_in_nats() -> None:
    accuracy, nll = difference_cells(
        [
            made_comparison("ensemble", "best_single", "accuracy", 0.012, (0.002, 0.025)),
            made_comparison("ensemble", "best_single", "nll", -0.02288, (-0.0387, 0.0099)),
        ],
        1,
    )
    assert (accuracy.a, accuracy.b) == ("ensemble", "best single")
    assert (accuracy.value, accuracy.interval) == ("+1.2 points", "+0.2 to +2.5")
    assert (accuracy.metric, accuracy.verdict) == ("accuracy", "better")
    assert (nll.value, nll.interval) == ("−0.0229", "−0.0387 to +0.0099")
    assert nll.verdict == "not distinguishable"


def test_gates_have_more_decimals_below_one() -> None:
    gate = made_gate(value=2.094, bound=0.98765, limit=1.5)
    (cells,) = gate_cells(made_ledger(gates=(gate,)))
    assert (cells.value, cells.bound, cells.limit) == ("2.09", "0.9877", "1.50")
    assert cells.requirement.endswith("at least")
