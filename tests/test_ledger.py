"""The ledger's table and the gates' rule.

The golden file is written by `python -m tests.test_ledger`, once per schema version.
"""

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.card import Speedup
from ensemble.ledger import (
    PAIRS,
    STAGES,
    Gate,
    GateMargins,
    Predictions,
    StageFacts,
    build_ledger,
    differences,
    gates,
    ledger_rows,
    released,
    to_csv,
)
from search.spec import GateSpec
from tests.pools import synthetic_log_probs
from tests.test_decision import assert_close
from trainables.errors import PoolError
from trainables.records import dump_json

Array = np.ndarray[Any, Any]

GOLDEN = Path(__file__).parent / "golden" / "ledger.json"
SKILLS = {
    "student_int8": 1.9, "ensemble": 2.4, "seeds_ensemble": 2.2, "best_single": 1.7,
    "student_plain": 1.5, "uniform_top_k": 2.3, "student_fp32": 2.0,
}  # fmt: skip


def predictions(seed: int, examples: int = 150) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.arange(examples) % 3
    log_probs = synthetic_log_probs(rng, labels, skills=list(SKILLS.values()))
    return Predictions(labels=labels, stages=dict(zip(SKILLS, log_probs, strict=True)))


def facts() -> dict[str, StageFacts]:
    def of(stage: str) -> StageFacts:
        int8 = stage == "student_int8"
        return StageFacts(
            params=1000, bytes=1500 if int8 else 4000, latency_ms_batch1=0.5 if int8 else 0.8,
            images_per_second=2000.0, train_seconds=12.5,
        )  # fmt: skip

    return {stage: of(stage) for stage in STAGES}


def golden_ledger() -> dict[str, Any]:
    return build_ledger(
        run="golden",
        dataset={"name": "synthetic", "fingerprint": "f", "sizes": {"test": 150}},
        test=predictions(0),
        holdout=predictions(1),
        facts=facts(),
        margins=GateMargins(),
        test_reads=1,
        compute={"search_seconds": 3.0},
        machine={"cores": 2},
        speedup=Speedup(value=1.5, bound=1.4, level=0.95, repeats=50),
    )


def test_the_mapping_is_as_in_the_golden_file() -> None:
    assert_close(golden_ledger(), json.loads(GOLDEN.read_text()))


class TestRows:
    def test_against_the_definitions(self) -> None:
        found = predictions(3)
        rows = ledger_rows(found, facts())
        assert [row["stage"] for row in rows] == list(STAGES)
        n = len(found.labels)
        for row in rows:
            probs = np.exp(found.stages[row["stage"]].astype(float))
            named = probs.argmax(axis=1)
            right = int((named == found.labels).sum())
            assert row["accuracy"] == pytest.approx(right / n)
            per_class = [np.mean(named[found.labels == k] == k) for k in range(3)]
            assert row["balanced_accuracy"] == pytest.approx(np.mean(per_class))
            f1 = [
                2 * np.sum((named == k) & (found.labels == k))
                / (np.sum(named == k) + np.sum(found.labels == k))
                for k in range(3)
            ]  # fmt: skip
            assert row["macro_f1"] == pytest.approx(np.mean(f1))
            true = probs[np.arange(n), found.labels]
            assert row["nll"] == pytest.approx(-np.log(true).mean())
            onehot = np.eye(3)[found.labels]
            assert row["brier"] == pytest.approx(((probs - onehot) ** 2).sum(axis=1).mean())
            named_by_ensemble = found.stages["ensemble"].argmax(axis=1)
            assert row["agreement_with_ensemble"] == pytest.approx(
                (named == named_by_ensemble).mean()
            )
            # Wilson's interval solves |p̂ − p| = z √(p(1 − p)/n).
            for p in row["accuracy_interval"]:
                z = abs(right / n - p) / np.sqrt(p * (1 - p) / n)
                assert z == pytest.approx(1.959964, rel=1e-5)
            assert row["split"] == "test"
            assert (row["params"], row["train_seconds"]) == (1000, 12.5)

    def test_ece_null_is_what_calibrated_labels_give(self) -> None:
        # Labels drawn from the predictions: the ECE lies near its null. Over 40 draws the
        # mean differs from it by more than 4 standard errors once in 16,000 times.
        rng = np.random.default_rng(0)
        log_probs = predictions(4, examples=300).stages["ensemble"]
        errors = []
        for _ in range(40):
            draws = rng.random(300)[:, None]
            labels = (np.exp(log_probs).cumsum(axis=1) < draws).sum(axis=1).clip(0, 2)
            drawn = Predictions(labels=labels, stages={"ensemble": log_probs})
            row = ledger_rows(drawn, {})[0]
            errors.append(row["ece"])
        error = np.std(errors, ddof=1) / np.sqrt(len(errors))
        assert np.mean(errors) == pytest.approx(row["ece_null"], abs=4 * error + 2e-3)

    def test_what_is_absent_is_left_out_or_null(self) -> None:
        whole = predictions(5)
        stages = {name: whole.stages[name] for name in ("student_plain", "best_single")}
        few = Predictions(labels=whole.labels, stages=stages)
        rows = ledger_rows(few, {"best_single": StageFacts(params=7)}, split="holdout")
        assert [row["stage"] for row in rows] == ["best_single", "student_plain"]
        assert rows[0]["params"] == 7
        assert rows[0]["split"] == "holdout"
        for row in rows:
            assert row["bytes"] is None
            assert row["agreement_with_ensemble"] is None
        assert differences(few) == []

    def test_certain_and_wrong_stays_finite(self) -> None:
        with np.errstate(divide="ignore"):
            log_probs = np.log(np.eye(3, dtype=np.float32)[np.arange(30) % 3])
        wrong = Predictions(labels=(np.arange(30) + 1) % 3, stages={"ensemble": log_probs})
        assert '"nll": 16.1' in dump_json({"rows": ledger_rows(wrong, {})})

    @pytest.mark.parametrize(
        ("stages", "message"),
        [
            ({"student": np.zeros((4, 3))}, "unknown stage 'student'; stages: best_single"),
            (
                {"ensemble": np.zeros((5, 3))},
                r"'ensemble': expected .* \[4, K\], got shape \[5, 3\]",
            ),
            ({"ensemble": np.zeros(4)}, r"got shape \[4\]"),
            (
                {"ensemble": np.full((4, 3), np.nan)},
                "'ensemble': log-probabilities must not be NaN",
            ),
        ],
    )
    def test_predictions_that_do_not_fit(self, stages: dict[str, Array], message: str) -> None:
        broken = Predictions(labels=np.zeros(4, int), stages=stages)
        with pytest.raises(PoolError, match=message):
            ledger_rows(broken, {})
        with pytest.raises(PoolError, match=message):
            differences(broken)
        with pytest.raises(PoolError, match=message):
            gates(broken, {}, GateMargins())


class TestDifferences:
    def test_pairs_metrics_and_signs(self) -> None:
        found = predictions(6)
        entries = differences(found)
        assert [(e["a"], e["b"], e["metric"]) for e in entries] == [
            (a, b, metric) for a, b in PAIRS for metric in ("accuracy", "nll")
        ]
        rows = {row["stage"]: row for row in ledger_rows(found, {})}
        for entry in entries:
            metric = entry["metric"]
            expected = rows[entry["a"]][metric] - rows[entry["b"]][metric]
            assert entry["value"] == pytest.approx(expected, abs=1e-12)
            low, high = entry["interval"]
            assert low <= entry["value"] <= high
            assert entry["method"] in ("paired-bootstrap", "mcnemar-exact")
            if low <= 0.0 <= high:
                assert entry["verdict"] == "not distinguishable"

    def test_a_stage_against_its_copy(self) -> None:
        # As when the seeds are the ensemble that ships.
        whole = predictions(7)
        twin = {"ensemble": whole.stages["ensemble"], "seeds_ensemble": whole.stages["ensemble"]}
        for entry in differences(Predictions(labels=whole.labels, stages=twin)):
            assert entry["value"] == 0.0
            assert entry["verdict"] == "not distinguishable"
            dump_json(entry)


class TestGates:
    @staticmethod
    def holdout(disagreements: int, examples: int = 1000) -> Predictions:
        """The ensemble and fp32 are all right; int8 errs on the first `disagreements`."""
        labels = np.zeros(examples, dtype=np.int64)
        right = np.log(np.tile([0.9, 0.1], (examples, 1))).astype(np.float32)
        int8 = right.copy()
        int8[:disagreements] = int8[:disagreements, ::-1]
        stages = {"ensemble": right, "student_fp32": right, "student_int8": int8}
        return Predictions(labels=labels, stages=stages)

    @pytest.mark.parametrize(
        ("errors", "verdict"), [(0, "pass"), (10, "pass"), (18, "undecided"), (60, "fail")]
    )
    def test_accuracy_loss(self, errors: int, verdict: str) -> None:
        gate = gates(self.holdout(errors), facts(), GateMargins(max_accuracy_loss=0.02))[0]
        assert (gate.name, gate.verdict) == ("accuracy_loss", verdict)
        assert gate.value == pytest.approx(errors / 1000)
        assert gate.bound is not None
        assert gate.optimistic is not None
        assert gate.optimistic <= errors / 1000 < gate.bound

    def test_nll_gain(self) -> None:
        # Each error costs log 9; a margin of 0.1 nats allows 4.6% of them.
        for errors, verdict in ((30, "pass"), (44, "undecided"), (80, "fail")):
            gate = gates(self.holdout(errors), facts(), GateMargins(max_nll_gain=0.1))[1]
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
    def test_speedup_from_two_latencies(
        self, fp32: float, int8: float, limit: float, verdict: str
    ) -> None:
        costs = {
            "student_fp32": StageFacts(latency_ms_batch1=fp32),
            "student_int8": StageFacts(latency_ms_batch1=int8),
        }
        gate = gates(self.holdout(0), costs, GateMargins(min_speedup=limit))[2]
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
    def test_speedup_from_paired_timings(self, value: float, bound: float, verdict: str) -> None:
        measured = Speedup(value=value, bound=bound, level=0.95, repeats=50)
        gate = gates(self.holdout(0), facts(), GateMargins(), speedup=measured)[2]
        assert (gate.value, gate.bound, gate.verdict) == (value, bound, verdict)

    def test_shrink_is_exact(self) -> None:
        for limit, verdict in ((4000 / 1500, "pass"), (2.7, "fail")):
            gate = gates(self.holdout(0), facts(), GateMargins(min_shrink=limit))[3]
            assert (gate.name, gate.verdict) == ("shrink", verdict)
            assert gate.value == gate.bound == gate.optimistic == 4000 / 1500

    def test_missing_figures_are_undecided_and_hold_the_release(self) -> None:
        decided = gates(self.holdout(0), {}, GateMargins())
        assert [gate.verdict for gate in decided] == ["pass", "pass", "undecided", "undecided"]
        assert decided[2].value is None
        assert released(decided) == "fp32"
        alone = Predictions(
            labels=np.zeros(50, int),
            stages={"student_int8": self.holdout(0, 50).stages["student_int8"]},
        )
        assert [gate.verdict for gate in gates(alone, facts(), GateMargins())][:2] == [
            "undecided", "undecided",
        ]  # fmt: skip

    def test_release(self) -> None:
        passing = gates(self.holdout(0), facts(), GateMargins())
        assert {gate.verdict for gate in passing} == {"pass"}
        assert released(passing) == "int8"
        undecided = dataclasses.replace(passing[0], verdict="undecided")
        assert released([*passing[1:], undecided]) == "fp32"
        assert released([*passing[1:], dataclasses.replace(passing[0], verdict="fail")]) == "fp32"
        assert released([]) == "fp32"

    def test_without_an_int8_student_there_are_no_gates(self) -> None:
        stages = {"ensemble": self.holdout(0).stages["ensemble"]}
        assert (
            gates(Predictions(labels=np.zeros(1000, int), stages=stages), {}, GateMargins()) == []
        )

    @given(errors=st.integers(0, 80), limit=st.floats(0.0, 0.2), more=st.floats(0.0, 0.2))
    def test_a_wider_margin_is_never_worse(self, errors: int, limit: float, more: float) -> None:
        def decide(margin: float) -> Gate:
            return gates(self.holdout(errors), facts(), GateMargins(max_accuracy_loss=margin))[0]

        order = ("fail", "undecided", "pass")
        assert order.index(decide(limit + more).verdict) >= order.index(decide(limit).verdict)

    def test_a_student_at_the_limit_passes_at_most_once_in_twenty(self) -> None:
        # The true loss equals the limit. At a true level of 5%, more than 28 of 300 pass once
        # in 1,600 repetitions of this test; here 17 do.
        rng = np.random.default_rng(0)
        passed = 0
        for _ in range(300):
            errors = int(rng.binomial(1000, 0.05))
            margins = GateMargins(max_accuracy_loss=0.05)
            passed += gates(self.holdout(errors), facts(), margins)[0].verdict == "pass"
        assert passed <= 28

    def test_margins_mirror_the_specification(self) -> None:
        assert dataclasses.asdict(GateMargins()) == dataclasses.asdict(GateSpec())


def test_csv_reads_back() -> None:
    rows = ledger_rows(predictions(8), {"ensemble": StageFacts(params=5)})
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [row["stage"] for row in read] == list(STAGES)
    for row, cells in zip(rows, read, strict=True):
        assert float(cells["nll"]) == row["nll"]
        assert [float(cells[f"accuracy_interval_{end}"]) for end in ("low", "high")] == (
            row["accuracy_interval"]
        )
    assert [cells["params"] for cells in read] == ["", "", "", "5", "", "", ""]
    assert to_csv([]) == "\n"


def test_the_whole_is_finite_json_and_repeatable() -> None:
    ledger = golden_ledger()
    dump_json(ledger)
    assert ledger == golden_ledger()
    assert ledger["released"] in ("int8", "fp32")
    assert ledger["test_reads"] == 1
    assert {gate["name"] for gate in ledger["gates"]} == {
        "accuracy_loss", "nll_gain", "speedup", "shrink",
    }  # fmt: skip


if __name__ == "__main__":
    GOLDEN.write_text(dump_json(golden_ledger()))
