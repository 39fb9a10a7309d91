"""benchmarks/gpu.py on a CPU: every part runs, and needs neither Ray, Optuna nor MLflow."""

import importlib
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from common.errors import DataError
from tests.docs import ROOT
from trainables.data.splits import Splits

SCRIPT = ROOT / "benchmarks" / "gpu.py"
TABLE = """
import sys, time, torch
for part, count in (("train", 40), ("test", 8)):
    data = torch.load(f"cifar10/{part}.pt")
    assert data["images"].shape == (count, 32, 32, 3) and data["images"].dtype == torch.uint8
    assert data["labels"].tolist() == [i % 10 for i in range(len(data["labels"]))]
print("|  run     |  epoch  |  train_acc  |  tta_val_acc  |  time_seconds  |")
for run in ("warmup", 0, 1):
    print(f"|  {run}  |  0  |  0.5000  |    |  1.0000  |")
    accuracy = 0.1 if run == "warmup" else 0.9 + run / 100
    print(f"|      |  eval  |  0.5000  |  {accuracy}  |  2.5000  |")
print("out of luck", flush=True)
sys.exit(3)
"""
"""A script that prints like airbench's: the number of a run is in its first row only."""


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the scripts' modules importable."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("gpu"):
            del sys.modules[name]


def without_services(folder: Path) -> dict[str, str]:
    """Return an environment in which Ray, Optuna and MLflow cannot be imported."""
    for name in ("ray", "optuna", "mlflow"):
        (folder / f"{name}.py").write_text("raise ModuleNotFoundError(__name__)")
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


Rows = dict[str, list[dict[str, Any]]]


def rows_of(part: str, folder: Path) -> Rows:
    """Run a part on a few images, without Ray, Optuna and MLflow; return its rows by table."""
    out = folder / "out"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--tiny", "--device", "cpu", "--only", part, "--out", out],
        env=without_services(folder), cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    files = {path.stem: json.loads(path.read_text()) for path in out.iterdir()}
    for name, file in files.items():
        assert file["about"]["command"].startswith("python ")
        assert file["about"]["tiny"]
        assert done.stdout.count(f"### {name}\n") == 1
    return {name: file["rows"] for name, file in files.items()}


@pytest.mark.slow
def test_both_recipes_are_timed(tmp_path: Path) -> None:
    rows = rows_of("time94", tmp_path)["time94"]
    assert {row["recipe"] for row in rows} == {"airbench94", "airbench94_muon"}
    assert all(0 < row["train_seconds"] < row["seconds"] for row in rows)


@pytest.mark.slow
def test_every_network_is_timed_alone_and_in_the_engine(tmp_path: Path) -> None:
    rows = rows_of("throughput", tmp_path)
    assert set(rows) == {"limits", "throughput"}
    measured = {(row["net"], row["what"], row["code"]) for row in rows["throughput"]}
    for net in ("32/64/128", "64/256/256", "lite0"):
        for what in ("training", "inference"):
            assert {(net, what, "net alone"), (net, what, "engine")} <= measured


@pytest.mark.slow
def test_trials_share_a_device_in_processes_and_in_threads(tmp_path: Path) -> None:
    rows = rows_of("sharing", tmp_path)["sharing"]
    counts = [(row["arm"], row["at_a_time"]) for row in rows]
    assert counts == [("processes", 1), ("processes", 2), ("threads", 2)]
    assert rows[0]["ratio"] == 1
    assert all(row["trials_per_hour"] > 0 for row in rows)


@pytest.mark.slow
def test_a_replay_on_a_cpu_is_exact(tmp_path: Path) -> None:
    rows = rows_of("replay", tmp_path)["replay"]
    equal = {row["arm"]: row["bitwise"] for row in rows}
    assert equal == {"as it is": "yes", "another seed": "no", "deterministic": "yes"}


def test_work_is_counted_from_the_layers(benchmarks: None) -> None:
    """The first block of 32/64/128 alone has 24·9·32·31² and 32·9·32·15² multiplications."""
    throughput = importlib.import_module("gpu_throughput")
    net = throughput.NETS["32/64/128"]
    images = importlib.import_module("gpu_session").noise(16)
    work = throughput.work_of(net, images)
    convolutions = (
        (24 * 12, 31), (32 * 24 * 9, 31), (32 * 32 * 9, 15), (64 * 32 * 9, 15), (64 * 64 * 9, 7),
        (128 * 64 * 9, 7), (128 * 128 * 9, 3),
    )  # fmt: skip
    products = sum(weights * side**2 for weights, side in convolutions) + 128 * 10
    assert work.flops == 2 * products
    assert work.values > 2 * 24 * 31**2


def test_another_script_stands_still_between_its_runs(tmp_path: Path, benchmarks: None) -> None:
    time94 = importlib.import_module("gpu_time94")
    images = importlib.import_module("gpu_session").noise(48, test=8)
    script = tmp_path / "script.py"
    script.write_text(TABLE)
    rows = np.arange(48)
    splits = Splits(train=rows[:40], val=rows[:0], holdout=rows[:0], test=rows[40:], split_id="all")
    with time94.running(script, images, splits) as other:
        assert other.next_run(timeout=60) == {"seconds": 2.5, "accuracy": 0.9}
        process = psutil.Process(other.pid)
        while process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.01)  # the signal is delivered a moment later
        assert other.next_run(timeout=60) == {"seconds": 2.5, "accuracy": 0.91}
        with pytest.raises(RuntimeError, match="exit code 3; last line: out of luck"):
            other.next_run(timeout=60)


def test_a_part_that_does_not_end_is_killed(benchmarks: None) -> None:
    gpu = importlib.import_module("gpu")
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert "time was over" in gpu._run_apart(sleep, until=time.time() - 60)
    assert gpu._run_apart([sys.executable, "-c", "raise SystemExit(3)"], until=time.time() + 60)
    assert not gpu._run_apart([sys.executable, "-c", ""], until=time.time() + 60)


def test_an_incomplete_cifar10_is_refused_instead_of_downloaded(
    tmp_path: Path, benchmarks: None
) -> None:
    session = importlib.import_module("gpu_session").Session
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps({}))
    with pytest.raises(DataError, match="not the whole of CIFAR-10"):
        session(command="", device="cpu", data=tmp_path).images()


def test_an_unknown_part_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--only", "all"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "time94, throughput, sharing, replay" in done.stderr
