"""A process that trains: memory that is freed is kept, threads wait without a fight."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from common import cpu_runtime
from common.cpu_runtime import usable_cores, wait_passively

PROGRAM = """
import resource
import torch
from common.cpu_runtime import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(4_000_000).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

fresh = faults()
assert keep_freed_memory()
faults()
print(fresh, faults())
"""

IN_A_THREAD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from resource import RUSAGE_SELF, getrusage
from common.cpu_runtime import keep_freed_memory, share_arena
if sys.argv[1] == "shared":
    assert share_arena()
import torch  # which starts threads of its own
assert keep_freed_memory()

def allocate():
    for _ in range(8):
        parts = [torch.ones(1_000_000) for _ in range(40)]
        del parts

with ThreadPoolExecutor(1) as thread:
    thread.submit(allocate).result()
    before = getrusage(RUSAGE_SELF).ru_minflt
    thread.submit(allocate).result()
    print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the knobs")
def test_pages_are_kept() -> None:
    command = [sys.executable, "-c", PROGRAM]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    fresh, kept = map(int, told.split())
    assert fresh > 4 * 4_000_000 * 4 / 4096 / 2, "half of the pages of four tensors at least"
    assert kept < fresh / 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the knobs")
def test_a_thread_keeps_pages_too() -> None:
    own, shared = (faults_in_a_thread(arena) for arena in ("own", "shared"))
    assert shared < own / 5


def faults_in_a_thread(arena: str) -> int:
    command = [sys.executable, "-c", IN_A_THREAD, arena]
    return int(
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    )


@pytest.mark.parametrize(("given", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_passively_unless_told(
    monkeypatch: pytest.MonkeyPatch, given: str | None, found: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == found


def test_a_containers_quota_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(64))
    for text, cores in (("150000 100000", 1), ("400000 100000", 4), ("max 100000", 64), ("", 64)):
        (tmp_path / "cpu.max").write_text(text)
        monkeypatch.setattr(cpu_runtime, "CPU_QUOTA", tmp_path / "cpu.max")
        assert usable_cores() == cores
    monkeypatch.setattr(cpu_runtime, "CPU_QUOTA", tmp_path / "none")
    assert usable_cores() == 64
