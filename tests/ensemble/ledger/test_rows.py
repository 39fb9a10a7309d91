"""The ledger's table.

Written by `python -m tests.ensemble.ledger.test_ledger`, once per schema version.
"""

import csv
import dataclasses
import io
import json
from typing import Any

import numpy as np
import pytest

from common.errors import PoolError
from common.files import dump_json
from ensemble.deployment.card import Speedup
from ensemble.deployment.gates import GateMargins, gates
from ensemble.ledger.ledger import PAIRS, build_ledger, differences, ledger_rows, to_csv
from ensemble.ledger.rows import STAGES, Predictions, StageFacts
from search.space.spec import GateSpec
from tests.docs import ROOT
from tests.ensemble.selection.test_decision import assert_close
from tests.pools import synthetic_log_probs

Array = np.ndarray[Any, Any]

MARGINS = GateMargins(**dataclasses.asdict(GateSpec()))
GOLDEN = ROOT / "tests" / "golden" / "ledger.json"
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
        margins=MARGINS,
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
            gates(broken, {}, MARGINS)


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
