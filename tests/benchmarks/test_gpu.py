"""benchmarks/gpu.py on a CPU: every part runs, and needs neither Ray, Optuna nor MLflow."""

import importlib
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from common.errors import DataError, DivergedError
from tests.docs import ROOT
from trainables import resident_pixels
from trainables.augmentation.batch import count_views
from trainables.data.image_set import ImageSet
from trainables.data.splits import Splits, SplitSpec, make_splits
from trainables.device.candidates import half_precision
from trainables.recipe import Numerics, Recipe

SCRIPT = ROOT / "benchmarks" / "gpu.py"


def script_like_airbench(*, train: int, test: int, runs: int, compiling: float = 0.0) -> str:
    """Return a script that prints like airbench's and fails after its last run.

    The number of a run is in its first row only. `compiling` are the seconds of the warm-up.
    """
    return f"""
import sys, time, torch
for part, first, count in (("train", 0, {train}), ("test", {train}, {test})):
    data = torch.load(f"cifar10/{{part}}.pt")
    assert data["images"].shape == (count, 32, 32, 3) and data["images"].dtype == torch.uint8
    assert data["labels"].tolist() == [(first + i) % 10 for i in range(count)]
print("|  run     |  epoch  |  train_acc  |  tta_val_acc  |  time_seconds  |")
for run in ("warmup", *range({runs})):
    print(f"|  {{run}}  |  0  |  0.5000  |    |  1.0000  |")
    time.sleep({compiling} if run == "warmup" else 0)
    accuracy = 0.1 if run == "warmup" else 0.9 + run / 100
    print(f"|      |  eval  |  0.5000  |  {{accuracy}}  |  2.5000  |")
print("out of luck", flush=True)
sys.exit(3)
"""


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the modules of the scripts importable, also in processes that a test starts."""
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


def rows_of(part: str, folder: Path, *options: str) -> Rows:
    """Run a part on a few images, without Ray, Optuna and MLflow; return its rows by table."""
    out = folder / "out"
    command = [sys.executable, str(SCRIPT), "--tiny", "--device", "cpu", "--only", part]
    done = subprocess.run(
        [*command, "--out", str(out), *options],
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
def test_a_script_of_airbench_runs_in_turns_with_ours(tmp_path: Path) -> None:
    script = tmp_path / "other.py"
    script.write_text(script_like_airbench(train=512, test=128, runs=3))
    rows = rows_of("time94", tmp_path, "--airbench", str(script))["time94"]
    theirs = [(row["run"], row["accuracy"]) for row in rows if row["code"] == "airbench"]
    assert theirs == [(0, 0.91), (1, 0.92)]  # run 0 of the script, 0.90, is not counted


def test_captured_trainings_are_compared_with_the_script_of_airbench(
    benchmarks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that diverges leaves a note, and the others go on."""
    time94, session = (importlib.import_module(f"gpu_{name}") for name in ("time94", "session"))

    def trained(numerics: Numerics, recipe: Recipe, *_: Any, seed: int) -> dict[str, float]:
        if numerics.captured and recipe.optimizer.name == "muon_sgd":
            raise DivergedError("training loss is nan")
        seconds = (2.0 if numerics.captured else 4.0) + seed / 100
        return {"seconds": seconds, "accuracy": 0.9}

    monkeypatch.setattr(time94, "trained", trained)
    monkeypatch.setattr(session, "half_precision", lambda _: "bfloat16")
    report = session.Report(session.Session(command="", device="cuda"), "time94", time94.COLUMNS)
    images = session.noise(8)
    for run in range(2):
        time94.train_ours(report, time94.RECIPES, images, splits_of(8, test=0), run=run)
        report.row(run=run, code="airbench", recipe="script", seconds=2.0, accuracy=0.9)
    assert report.notes == [
        f"ours, captured airbench94_muon, seed {seed}: DivergedError: training loss is nan"
        for seed in (1, 2)
    ]
    time94.summarize(report, test_images=8)
    ratios = [note.partition(" times")[0] for note in report.notes if " times the seconds" in note]
    assert ratios == [
        "ours airbench94 / airbench script: 2.01",
        "ours, captured airbench94 / airbench script: 1.01",
        "ours airbench94_muon / airbench script: 2.01",
    ]


@pytest.mark.slow
def test_no_step_waits_on_a_cpu(tmp_path: Path) -> None:
    rows = rows_of("waits", tmp_path)["waits"]
    assert len(rows) == 8
    assert all(row["waits"] == 0 for row in rows)


def test_the_waits_of_a_step_are_those_that_grow_with_the_steps(
    benchmarks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch's own waits and other warnings do not count."""
    waits, session = (importlib.import_module(f"gpu_{name}") for name in ("waits", "session"))
    modes: list[str] = []

    class Waiting:
        is_captured = False

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def rehearse(self, steps: int) -> None:
            if modes[-1:] != ["warn"]:
                return
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
            for _ in range(steps):
                warnings.warn("another warning", stacklevel=1)
                for _ in range(2):
                    warnings.warn_explicit(
                        "called a synchronizing CUDA operation", UserWarning, "/a/step.py", 17
                    )

    monkeypatch.setattr(waits, "Training", Waiting)
    monkeypatch.setattr("torch.cuda.set_sync_debug_mode", modes.append)
    numerics, images = Numerics(device="cuda"), session.noise(8)
    case = waits.Case(recipe=Recipe(), numerics=numerics)
    assert waits.waits_per_step(case, images) == (2.0, "step.py:17")
    captured = waits.Case(recipe=Recipe(), numerics=replace(numerics, captured=True))
    with pytest.raises(RuntimeError, match="was not captured"):
        waits.waits_per_step(captured, images)
    assert modes == 2 * ["warn", "default"]
    monkeypatch.setattr(waits, "WARNING", "a text that torch no longer has")
    with pytest.raises(RuntimeError, match="warned of no wait"):
        waits.waits_per_step(case, images)


def test_the_head_is_trained_on_features_and_images_are_read_ahead(
    benchmarks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latter even if the device has a copy of the images from an earlier case."""
    waits, session = (importlib.import_module(f"gpu_{name}") for name in ("waits", "session"))
    tiny = session.Session(command="", device="cpu", tiny=True)
    cases, images = waits.cases(tiny), session.noise(64)
    recipe = cases["head on features"].recipe
    assert count_views(recipe.in_stage(0).augmentation) == 2
    seen = []

    class Training:
        def __init__(self, *_: Any, images: ImageSet, **__: Any) -> None:
            seen.append((images.images, resident_pixels.has_room(torch.device("cuda"), 1)))

        def rehearse(self, steps: int) -> None:
            pass

    monkeypatch.setattr(waits, "Training", Training)
    waits.waits_per_step(cases["SGD, images read ahead"], images)
    ((pixels, has_room),) = seen
    assert pixels is not images.images
    assert not has_room


def test_a_gpu_is_also_tried_with_captured_steps_and_images_read_ahead(
    benchmarks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    throughput, waits, session = (
        importlib.import_module(f"gpu_{name}") for name in ("throughput", "waits", "session")
    )
    monkeypatch.setattr(session, "half_precision", lambda _: "bfloat16")
    here = session.Session(command="", device="cuda")
    net = throughput.NETS["32/64/128"]
    measurements = throughput.measurements(here, net, session.noise(8), "float32")
    codes = {code for _, code, *_ in measurements}
    assert codes == {
        "net alone", "captured", "engine", "engine, captured", "engine, read ahead",
    }  # fmt: skip
    cases = waits.cases(here)
    assert {case.numerics.dtype for case in cases.values()} == {"bfloat16", "float16"}
    assert [name for name, case in cases.items() if case.numerics.captured]
    tiny = session.Session(command="", device="cpu", tiny=True)
    images = session.noise(24)
    assert throughput.engine_reads_ahead(tiny, net, images, Numerics(), 8) > 0


@pytest.mark.slow
def test_every_network_is_timed_alone_and_in_the_engine(tmp_path: Path) -> None:
    rows = rows_of("throughput", tmp_path)
    assert set(rows) == {"limits", "throughput"}
    measured = {
        (row["net"], row["what"], row["code"]) for row in rows["throughput"] if "failed" not in row
    }
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


def stopped(pid: int) -> bool:
    """Wait a moment until the process is stopped by a signal, or has ended."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            return True
        time.sleep(0.01)
    return False


def test_another_script_stands_still_between_its_runs(tmp_path: Path, benchmarks: None) -> None:
    airbench = importlib.import_module("gpu_airbench")
    images = importlib.import_module("gpu_session").noise(48, test=8)
    script = tmp_path / "script.py"
    script.write_text(script_like_airbench(train=40, test=8, runs=2))
    with airbench.running(script, images, splits_of(40, test=8)) as other:
        assert other.next_run(timeout=60) == {"seconds": 2.5, "accuracy": 0.9}
        assert stopped(other.pid)
        assert other.next_run(timeout=60) == {"seconds": 2.5, "accuracy": 0.91}
        with pytest.raises(RuntimeError, match="exit code 3; last line: out of luck"):
            other.next_run(timeout=60)


def splits_of(train: int, *, test: int) -> Splits:
    rows = np.arange(train + test)
    none = rows[:0]
    return Splits(train=rows[:train], val=none, holdout=none, test=rows[train:], split_id="all")


def test_a_script_compiles_and_stops_before_ours_begins(tmp_path: Path, benchmarks: None) -> None:
    airbench, time94 = (importlib.import_module(f"gpu_{name}") for name in ("airbench", "time94"))
    session = importlib.import_module("gpu_session")
    images = session.noise(48, test=8)
    script = tmp_path / "script.py"
    script.write_text(script_like_airbench(train=40, test=8, runs=1, compiling=0.5))
    here = session.Session(command="", device="cpu", until=time.time() + 600)
    report = session.Report(here, "time94", time94.COLUMNS)
    with airbench.running(script, images, splits_of(40, test=8)) as other:
        assert time94.first_run_done(other, report) is other
        assert stopped(other.pid)
        (note,) = report.notes
        assert float(re.findall(r"script: (\d+\.\d) s until", note)[0]) >= 0.5
        assert time94.run_theirs(other, report, run=0) is None
    assert "exit code 3" in report.notes[-1]
    assert not report.rows


def test_a_script_that_compiles_for_too_long_is_ended(tmp_path: Path, benchmarks: None) -> None:
    airbench, time94 = (importlib.import_module(f"gpu_{name}") for name in ("airbench", "time94"))
    session = importlib.import_module("gpu_session")
    script = tmp_path / "script.py"
    script.write_text("import time; time.sleep(600)")
    here = session.Session(command="", device="cpu", until=time.time() + 1)
    report = session.Report(here, "time94", time94.COLUMNS)
    images = session.noise(48, test=8)
    with airbench.running(script, images, splits_of(40, test=8)) as other:
        assert time94.first_run_done(other, report) is None
        assert not psutil.pid_exists(other.pid)
    assert "before its first run" in report.notes[0]


@pytest.mark.parametrize(
    ("device", "dtype"), [("cuda", "float16"), ("cpu", "float32")], ids=["T4", "cpu"]
)
def test_the_default_dtype_is_the_engines(
    device: str, dtype: str, benchmarks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = importlib.import_module("gpu_session")
    without = partial(half_precision, has_bfloat16=lambda _: False)
    monkeypatch.setattr(session, "half_precision", without)
    here = session.Session(command="", device=device)
    assert here.numerics().dtype == dtype
    assert here.numerics("bfloat16").dtype == "bfloat16"


def test_a_training_that_diverges_is_a_failed_row(
    benchmarks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    throughput = importlib.import_module("gpu_throughput")
    session = importlib.import_module("gpu_session").Session(command="", device="cpu", tiny=True)

    def diverges() -> float:
        raise DivergedError("training loss is nan")

    def measurements(*_: object) -> Iterator[tuple[str, str, int, Callable[[], float]]]:
        yield "training", "engine", 8, diverges
        yield "inference", "engine", 8, lambda: 5.0

    reports = []
    original = throughput.Report

    def report(*arguments: Any) -> Any:
        reports.append(original(*arguments))
        return reports[-1]

    monkeypatch.setattr(throughput, "Report", report)
    monkeypatch.setattr(throughput, "measurements", measurements)
    monkeypatch.setattr(throughput, "NETS", {"32/64/128": throughput.NETS["32/64/128"]})
    throughput.run_throughput(session)
    rows = [(row.get("failed"), row.get("images_per_second")) for row in reports[-1].rows]
    assert rows == 3 * [("DivergedError: training loss is nan", None), (None, 5.0)]


def test_the_threads_that_warmed_up_are_measured(benchmarks: None) -> None:
    threads = importlib.import_module("gpu_workers").Threads(3, on_gpu=False)
    first, second = threads.run(threading.get_ident), threads.run(threading.get_ident)
    assert sorted(first) == sorted(second)
    assert len({*first}) == 3


@pytest.mark.slow
def test_workers_are_new_after_one_of_them_died(tmp_path: Path, benchmarks: None) -> None:
    workers = importlib.import_module("gpu_workers")
    sharing = importlib.import_module("gpu_sharing")
    session = importlib.import_module("gpu_session")
    images = session.noise(96)
    np.save(tmp_path / "images.npy", images.images)
    np.save(tmp_path / "labels.npy", images.labels)
    here = session.Session(command="", device="cpu", tiny=True)
    work = workers.Work(
        images=str(tmp_path),
        splits=make_splits(images, SplitSpec()),
        recipe=sharing.TRIAL.with_values(width=4, epochs=1, batch_size=16),
        numerics=here.numerics(),
    )
    report = session.Report(here, "sharing", sharing.COLUMNS)
    crew = workers.Crew(work)
    try:
        dead, alive = crew.at_least(2)
        dead.process.kill()
        dead.process.join()
        alive.send((2, 0.0))  # its answer has two parts
        with sharing.noted(report, crew, "an arm"):
            dead.receive()
        assert report.notes == ["an arm: failed (EOFError: )"]
        assert not alive.process.is_alive()
        (new,) = crew.at_least(1)
        new.send((1, 0.0))
        (progress,) = new.receive()
        assert progress.epochs == 1
    finally:
        crew.at_most(0)


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
    assert "time94, waits, throughput, sharing, replay" in done.stderr
