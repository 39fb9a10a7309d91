"""The files and fields of a run's folder that programs outside this repository rely on."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from ensemble.deployment.onnx_model import OnnxClassifier
from ensemble.evaluation.robustness import RobustnessOptions, affordable
from journal.events import ResultReported
from journal.journal import read_events
from quorum import Outcome
from search.space.sweep_files import spec_of_run
from trainables.data.dataset import load_dataset
from trainables.data.splits import make_splits
from trainables.recipe import Numerics
from trainables.records import RunFolder

pytestmark = pytest.mark.slow

STAGES = [
    "best_single",
    "best_single_int8",
    "uniform_top_k",
    "seeds_ensemble",
    "ensemble",
    "student_plain",
    "student_fp32",
    "student_int8",
]

OPTIONAL = {"student_plain_int8", "soft_vote", "weighted_vote", "hard_vote"}
"""Rows of runs whose student is less accurate than its twin without a teacher, and of runs whose
ensemble has two members or more."""


@pytest.fixture(scope="session")
def root(finished_run: Outcome) -> Path:
    return finished_run.folder.root


@pytest.fixture(scope="session")
def ledger(root: Path) -> dict[str, Any]:
    mapping: dict[str, Any] = json.loads((root / "ledger" / "ledger.json").read_text())
    return mapping


@pytest.fixture(scope="session")
def selection(root: Path) -> dict[str, Any]:
    mapping: dict[str, Any] = json.loads((root / "selection.json").read_text())
    return mapping


def test_the_folder_has_every_part(root: Path) -> None:
    parts = [
        "sweep.yaml",
        "journal.jsonl",
        "optuna.journal",
        "selection.json",
        "student/model.onnx",
        "student/model.int8.onnx",
        "student/card.json",
        "ledger/test_logprobs.npz",
        "ledger/ledger.json",
        "ledger/ledger.csv",
        "report.pdf",
    ]
    assert [part for part in parts if not (root / part).is_file()] == []
    assert list((root / "figures").glob("*.png"))
    assert (root / "report.pdf").read_bytes().startswith(b"%PDF")


def test_every_trial_left_its_record(root: Path) -> None:
    trials = sorted((root / "trials").iterdir())
    assert [trial.name for trial in trials] == ["s00", "s01", "t0000", "t0001", "t0002", "t0003"]
    split_ids = set()
    for trial in trials:
        start = json.loads((trial / "start.json").read_text())
        record = json.loads((trial / "record.json").read_text())
        split_ids |= {start["split_id"], record["split_id"]}
        assert {"recipe", "seed", "numerics", "machine", "code_version"} <= start.keys()
        assert {"status", "seconds", "peak_memory_bytes", "metrics"} <= record.keys()
        for split in ("val", "holdout"):
            log_probs = np.load(trial / f"{split}.npy", allow_pickle=False)
            assert log_probs.dtype == np.float32
            assert log_probs.shape == (400, 10)
            np.testing.assert_allclose(np.exp(log_probs).sum(1), 1.0, atol=1e-3)
        # Trials scored at the last rung or the one before can be members of the pool.
        pooled = record["rung"] in start["rungs"][-2:]
        assert (trial / "weights.safetensors").is_file() is pooled
    assert len(split_ids) == 1


def test_the_specification_is_whole(root: Path) -> None:
    mapping = yaml.safe_load((root / "sweep.yaml").read_text())
    assert mapping["name"] == "tiny"
    assert mapping["gates"]["max_accuracy_loss"] == 0.5


def test_the_journal_tells_it_all(root: Path) -> None:
    events = list(read_events(root / "journal.jsonl"))
    names = [event.event for event in events]
    assert names[0] == "run_started"
    assert names.count("trial_started") == names.count("trial_ended") == 6
    assert names.count("test_read") == 1
    frozen = [isinstance(e, ResultReported) and e.kind == "ensemble" for e in events]
    assert frozen.index(True) < names.index("test_read")


def test_selection(selection: dict[str, Any]) -> None:
    assert {
        "members",
        "temperature",
        "weighting",
        "gap_support",
        "gap_pool",
        "metrics",
        "best_single",
        "uniform_top_k",
        "seeds_ensemble",
        "order",
    } <= selection.keys()
    assert selection["weighting"] in ("learned", "uniform")
    assert sum(member["weight"] for member in selection["members"]) == pytest.approx(1, abs=1e-9)
    assert set(selection["metrics"]["holdout"]) == {"accuracy", "nll", "brier", "ece"}
    assert 1 <= len(selection["members"]) <= 2


def test_ledger_rows(ledger: dict[str, Any]) -> None:
    assert ledger["run"] == "tiny"
    assert {"name", "fingerprint", "sizes"} <= ledger["dataset"].keys()
    assert ledger["dataset"]["sizes"] == {"train": 400, "val": 400, "holdout": 400, "test": 597}
    assert [row["stage"] for row in ledger["rows"] if row["stage"] not in OPTIONAL] == STAGES
    fields = {
        "stage", "split", "accuracy", "accuracy_interval", "balanced_accuracy", "nll", "brier",
        "ece", "ece_null", "params", "bytes", "latency_ms_batch1", "images_per_second",
        "train_seconds", "agreement_with_ensemble",
    }  # fmt: skip
    for row in ledger["rows"]:
        assert fields <= row.keys()
        assert all(row[field] is not None for field in fields)
        low, high = row["accuracy_interval"]
        assert low <= row["accuracy"] <= high


def test_ledger_differences_gates_and_reads(ledger: dict[str, Any]) -> None:
    for difference in ledger["differences"]:
        assert {"a", "b", "metric", "value", "interval", "method"} <= difference.keys()
    for gate in ledger["gates"]:
        assert {"name", "value", "bound", "limit", "verdict"} <= gate.keys()
        assert gate["verdict"] in ("pass", "fail", "undecided")
    assert ledger["test_reads"] == 1
    assert ledger["compute"]
    assert ledger["machine"]["cores"] >= 1


def test_corrupted_images_other_data_and_prediction_sets(
    root: Path, ledger: dict[str, Any]
) -> None:
    robustness = ledger["robustness"]
    assert robustness["left_out"] == ""
    assert (robustness["images"], robustness["holdout_images"]) == (500, 400)
    measured = {stage for stage in STAGES if "seeds" not in stage and "top_k" not in stage}
    families = {"clean", "noise", "blur", "weather", "digital", "all"}
    found = {(row["stage"], row["family"]) for row in robustness["rows"]}
    assert found >= {(stage, family) for stage in measured for family in families}
    assert {"accuracy", "nll", "ece", "accuracy_interval"} <= robustness["rows"][0].keys()
    assert {row["stage"] for row in robustness["other_data"]} >= measured
    for row in ledger["conformal"]:
        covered = [item["coverage"] * item["images"] for item in row["by_class"]]
        assert sum(covered) == pytest.approx(row["coverage"] * 597)
        assert row["coverage"] > 0.9, "95% was asked for"
    release = json.loads((root / "student" / "release.json").read_text())["decision"]
    for candidate in release["candidates"]:
        names = [gate["name"] for gate in candidate["gates"]]
        assert names[:2] == ["accuracy_loss", "corruption_loss"]
    card = json.loads((root / "student" / "card.json").read_text())
    thresholds = {row["stage"]: row["threshold"] for row in ledger["conformal"]}
    assert card["int8"]["conformal"]["threshold"] == thresholds["student_int8"]


@pytest.mark.parametrize(("seconds", "images"), [(None, 500), (1e6, 500), (1e-6, 0), (-1.0, 0)])
def test_fewer_images_are_corrupted_where_time_is_short(
    root: Path, seconds: float | None, images: int
) -> None:
    folder = RunFolder(root)
    spec = spec_of_run(folder)
    data = load_dataset(spec.dataset)
    options = RobustnessOptions(seconds=seconds)
    splits = make_splits(data, spec.splits)
    assert affordable(folder, data, splits, Numerics(), options) == images


def test_the_rows_follow_from_the_stored_predictions(root: Path, ledger: dict[str, Any]) -> None:
    with np.load(root / "ledger" / "test_logprobs.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) - OPTIONAL == {"labels", *STAGES}
        labels = arrays["labels"]
        for row in ledger["rows"]:
            log_probs = arrays[row["stage"]]
            assert log_probs.dtype == np.float32
            assert row["accuracy"] == pytest.approx((log_probs.argmax(1) == labels).mean())
            assert row["nll"] == pytest.approx(-log_probs[range(len(labels)), labels].mean(), 1e-4)


def test_the_csv_has_the_same_rows(root: Path) -> None:
    with (root / "ledger" / "ledger.csv").open() as file:
        stages = [row["stage"] for row in csv.DictReader(file)]
    assert [stage for stage in stages if stage not in OPTIONAL] == STAGES


def test_the_student_reproduces_the_stored_predictions(root: Path) -> None:
    """Run the released files on raw pixels."""
    spec = spec_of_run(RunFolder(root))
    images = load_dataset(spec.dataset)
    splits = make_splits(images, spec.splits)
    with np.load(root / "ledger" / "test_logprobs.npz", allow_pickle=False) as arrays:
        for stage, name in (("student_fp32", "model.onnx"), ("student_int8", "model.int8.onnx")):
            found = OnnxClassifier(root / "student" / name).log_probs(images.images[splits.test])
            np.testing.assert_allclose(found, arrays[stage], atol=1e-5)


def test_the_int8_file_is_quantized(root: Path) -> None:
    card = json.loads((root / "student" / "card.json").read_text())
    graph = onnx.load(root / "student" / "model.int8.onnx").graph
    nodes = [node.op_type for node in graph.node]
    count = nodes.count("QuantizeLinear") + nodes.count("DequantizeLinear")
    assert card["quantization"]["qdq_nodes"] == count > 0
    assert card["released"] in ("fp32", "int8", "none")


def test_the_released_file_is_the_one_that_the_ledger_names(
    root: Path, ledger: dict[str, Any]
) -> None:
    release = json.loads((root / "student" / "release.json").read_text())
    assert release["decision"]["released"] == ledger["released"]
    names = {row["stage"] for row in ledger["rows"]}
    assert ledger["released"] in names | {"none"}
    if ledger["released"] != "none":
        assert (root / "student" / release["file"]).is_file()
    assert {item["stage"] for item in ledger["candidates"]} <= names


def test_nothing_is_left_half_done(root: Path) -> None:
    assert [path for path in root.rglob(".*") if path.is_file()] == []
    assert list(root.rglob("*.pkl")) == []
