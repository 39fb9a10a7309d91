"""The ledger's rows and paired differences, against their definitions."""

from typing import Any

import numpy as np
import pytest

from common.errors import PoolError
from common.files import dump_json
from common.parsing import to_mapping
from ensemble.deployment.gates import GateMargins, decide_gates
from ensemble.ledger.predictions import STAGES, Predictions, StageCost
from ensemble.ledger.rows import PAIRS, ledger_rows, paired_differences
from tests.pools import stage_costs, stage_predictions

Array = np.ndarray[Any, Any]

MARGINS = GateMargins(max_accuracy_loss=0.02, max_nll_gain=0.05, min_speedup=1.0, min_shrink=1.5)


class TestRows:
    def test_scores_equal_their_definitions(self) -> None:
        predictions = stage_predictions(3)
        labels = predictions.labels
        rows = ledger_rows(predictions, stage_costs())
        assert [row.stage for row in rows] == list(STAGES)
        n = len(labels)
        for row in rows:
            probs = np.exp(predictions.stages[row.stage].astype(float))
            named = probs.argmax(axis=1)
            right = int((named == labels).sum())
            assert row.accuracy == pytest.approx(right / n)
            per_class = [np.mean(named[labels == k] == k) for k in range(3)]
            assert row.balanced_accuracy == pytest.approx(np.mean(per_class))
            f1 = [
                2 * np.sum((named == k) & (labels == k))
                / (np.sum(named == k) + np.sum(labels == k))
                for k in range(3)
            ]  # fmt: skip
            assert row.macro_f1 == pytest.approx(np.mean(f1))
            true = probs[np.arange(n), labels]
            assert row.nll == pytest.approx(-np.log(true).mean())
            onehot = np.eye(3)[labels]
            assert row.brier == pytest.approx(((probs - onehot) ** 2).sum(axis=1).mean())
            named_by_ensemble = predictions.stages["ensemble"].argmax(axis=1)
            assert row.agreement_with_ensemble == pytest.approx((named == named_by_ensemble).mean())
            # Wilson's interval solves |p̂ − p| = z √(p(1 − p)/n).
            for p in row.accuracy_interval:
                z = abs(right / n - p) / np.sqrt(p * (1 - p) / n)
                assert z == pytest.approx(1.959964, rel=1e-5)
            assert row.split == "test"
            assert (row.params, row.train_seconds) == (1000, 12.5)

    def test_ece_null_is_the_mean_ece_of_calibrated_labels(self) -> None:
        # Labels are drawn from the predictions. Over 40 draws the mean ECE differs from the
        # null by more than 4 standard errors once in 16,000 times.
        rng = np.random.default_rng(0)
        log_probs = stage_predictions(4, examples=300).stages["ensemble"]
        errors = []
        for _ in range(40):
            draws = rng.random(300)[:, None]
            labels = (np.exp(log_probs).cumsum(axis=1) < draws).sum(axis=1).clip(0, 2)
            drawn = Predictions(labels=labels, stages={"ensemble": log_probs})
            row = ledger_rows(drawn, {})[0]
            errors.append(row.ece)
        error = np.std(errors, ddof=1) / np.sqrt(len(errors))
        assert np.mean(errors) == pytest.approx(row.ece_null, abs=4 * error + 2e-3)

    def test_absent_stages_have_no_row_and_unknown_costs_are_none(self) -> None:
        whole = stage_predictions(5)
        stages = {name: whole.stages[name] for name in ("student_plain", "best_single")}
        few = Predictions(labels=whole.labels, stages=stages)
        rows = ledger_rows(few, {"best_single": StageCost(params=7)}, split="holdout")
        assert [row.stage for row in rows] == ["best_single", "student_plain"]
        assert rows[0].params == 7
        assert rows[0].split == "holdout"
        for row in rows:
            assert row.bytes is None
            assert row.agreement_with_ensemble is None
        assert paired_differences(few) == ()

    def test_a_certain_and_wrong_stage_has_a_finite_nll(self) -> None:
        with np.errstate(divide="ignore"):
            log_probs = np.log(np.eye(3, dtype=np.float32)[np.arange(30) % 3])
        wrong = Predictions(labels=(np.arange(30) + 1) % 3, stages={"ensemble": log_probs})
        row = ledger_rows(wrong, {})[0]
        assert row.nll == pytest.approx(16.118, abs=1e-3)
        dump_json(to_mapping(row))

    @pytest.mark.parametrize(
        ("stages", "message"),
        [
            ({"student": np.zeros((4, 3))}, "unknown stage 'student'"),
            ({"ensemble": np.zeros((5, 3))}, r"\[4, K\], got shape \[5, 3\]"),
            ({"ensemble": np.zeros(4)}, r"got shape \[4\]"),
            ({"ensemble": np.full((4, 3), np.nan)}, "'ensemble'.*NaN"),
        ],
    )
    def test_predictions_that_do_not_fit_are_refused(
        self, stages: dict[str, Array], message: str
    ) -> None:
        broken = Predictions(labels=np.zeros(4, int), stages=stages)
        with pytest.raises(PoolError, match=message):
            ledger_rows(broken, {})
        with pytest.raises(PoolError, match=message):
            paired_differences(broken)
        with pytest.raises(PoolError, match=message):
            decide_gates("student_int8", broken, {}, MARGINS)


class TestDifferences:
    def test_a_difference_is_the_first_row_minus_the_second(self) -> None:
        predictions = stage_predictions(6)
        differences = paired_differences(predictions)
        assert [(d.a, d.b, d.metric) for d in differences] == [
            (a, b, metric) for a, b in PAIRS for metric in ("accuracy", "nll")
        ]
        rows = {row.stage: row for row in ledger_rows(predictions, {})}
        for difference in differences:
            a, b = (getattr(rows[s], difference.metric) for s in (difference.a, difference.b))
            assert difference.value == pytest.approx(a - b, abs=1e-12)
            low, high = difference.interval
            assert low <= difference.value <= high
            assert difference.method in ("paired-bootstrap", "mcnemar-exact")
            if low <= 0.0 <= high:
                assert difference.verdict == "not distinguishable"

    def test_a_stage_does_not_differ_from_its_copy(self) -> None:
        # This happens when the seeds ensemble is the one that ships.
        whole = stage_predictions(7)
        twins = dict.fromkeys(("ensemble", "seeds_ensemble"), whole.stages["ensemble"])
        for difference in paired_differences(Predictions(labels=whole.labels, stages=twins)):
            assert difference.value == 0.0
            assert difference.verdict == "not distinguishable"
