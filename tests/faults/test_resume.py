"""A sweep that was killed and resumed gives the same results as an uninterrupted one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.files import file_sha256
from journal.events import SweepEnded, TrialStarted
from journal.journal import read_events
from tests.architecture import PACKAGES
from tests.drive_sweep import spec_of
from tests.events import of_type
from tests.simulated_tune import SPEC, Sweep
from trainables.records import RunFolder

ROOT = Path(__file__).parent.parent.parent
KILLED = 137


def outcome(root: Path) -> dict[str, Any]:
    """Return the results that must not depend on how often a sweep was killed."""
    folder = RunFolder(root)
    events = read_events(folder.journal)
    keys = {
        "epoch": ("trial", "step", "rung", "val_nll"),
        "decision": ("trial", "rung", "value", "decision", "cutoff"),
        "trial_ended": ("trial", "status", "reason", "steps", "rung", "whole_schedule", "seconds"),
    }
    values = {
        name: [tuple(getattr(e, key) for key in fields) for e in events if e.event == name]
        for name, fields in keys.items()
    }
    starts = [(s.trial, s.recipe, s.seed) for s in folder.starts()]
    files = {
        str(path.relative_to(root)): file_sha256(path)
        for path in sorted(root.glob("trials/*/*"))
        if not path.name.startswith(".") and path.name != "start.json"
    }
    return {**values, "starts": starts, "files": files}


def in_a_child(action: Callable[[], None]) -> int:
    """Run `action` in a child process and return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(write: int, root: Path) -> int:
    """Run a sweep that is killed before its n-th line of the journal or rename."""
    count = 0

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count == write:
                os._exit(KILLED)
            return function(*arguments)

        return call

    def action() -> None:
        os.pwrite, os.replace = dying(os.pwrite), dying(os.replace)
        Sweep(RunFolder(root)).run()

    return in_a_child(action)


def test_a_sweep_killed_after_any_write_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A killed process loses nothing that it has written: syncing is for killed machines.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    Sweep(RunFolder(tmp_path / "whole")).run()
    whole = outcome(tmp_path / "whole")
    assert len(whole["starts"]) == SPEC.trials
    assert {status for _, status, *_ in whole["trial_ended"]} == {"completed", "pruned"}
    write = 1
    while True:
        root = tmp_path / str(write)
        status = killed_at(write, root)
        if status == 0:
            break
        assert status == KILLED
        before = read_events(root / "journal.jsonl") if (root / "journal.jsonl").exists() else []
        Sweep(RunFolder(root)).run()
        assert outcome(root) == whole, f"killed at write {write}"
        after = read_events(root / "journal.jsonl")
        assert after[: len(before)] == before
        assert list(root.glob("checkpoints/*")) == []
        write += 5
    assert write > 80


def test_a_sweep_that_is_killed_again_and_again_still_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    Sweep(RunFolder(tmp_path / "whole")).run()
    root = tmp_path / "killed"
    lives = 1
    while killed_at(30, root) == KILLED:
        lives += 1
        assert lives < 50, "30 writes must bring the sweep forward"
    assert lives > 3
    assert outcome(root) == outcome(tmp_path / "whole")


@contextmanager
def driver(root: Path, milliseconds: int, *, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a real sweep with Ray in its own process group."""
    command = [sys.executable, "-P", "-m", "tests.drive_sweep", str(root), str(milliseconds)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=cwd, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for_events(
    process: subprocess.Popen[bytes], root: Path, count: int
) -> list[psutil.Process]:
    """Wait until the journal has `count` events; return the driver's children."""
    until = time.monotonic() + 240
    while not (root / "journal.jsonl").exists() or len(read_events(root / "journal.jsonl")) < count:
        assert process.poll() is None, "the sweep ended too early"
        assert time.monotonic() < until, "the sweep makes no progress"
        time.sleep(0.02)
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_killed_and_then_interrupted_equals_the_simulation(
    tmp_path: Path,
) -> None:
    """Kill -9 a real process group, resume and press Ctrl-C, then run to the end. The processes
    start in a folder with packages named like ours.
    """
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise SystemExit('the wrong package')")
    root = tmp_path / "killed"
    with driver(root, 60, cwd=tmp_path) as process:
        children = wait_for_events(process, root, 9)
        os.killpg(process.pid, signal.SIGKILL)
    workers = [child for child in children if b"QuorumTrial" in _command(child)]
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []
    with driver(root, 60, cwd=tmp_path) as process:
        children = wait_for_events(process, root, 31)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == -signal.SIGINT
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    last = read_events(root / "journal.jsonl")[-1]
    assert isinstance(last, SweepEnded)
    assert last.reason == "interrupted"
    with driver(root, 60, cwd=tmp_path) as process:
        assert process.wait(timeout=400) == 0
    Sweep(RunFolder(tmp_path / "whole"), spec_of(milliseconds=60)).run()
    assert outcome(root) == outcome(tmp_path / "whole")
    attempts = [e.attempt for e in of_type(read_events(root / "journal.jsonl"), TrialStarted)]
    assert max(attempts) in (2, 3)


def _command(process: psutil.Process) -> bytes:
    try:
        return " ".join(process.cmdline()).encode()
    except psutil.NoSuchProcess:
        return b""
