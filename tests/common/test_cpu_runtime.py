"""The process on a CPU: freed memory is kept, threads wait passively, cores are counted."""

import io
import os
import platform
import subprocess
import sys

import pytest
from joblib.externals.loky.backend import context

from common.cpu_runtime import usable_cores, wait_passively

SMALL_PAGES = """
import ctypes
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: count pages of 4 KiB everywhere
"""

PROGRAM = (
    SMALL_PAGES
    + """
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
print(fresh, min(faults() for _ in range(6)))  # the first rounds still grow the heap
"""
)

IN_A_THREAD = (
    SMALL_PAGES
    + """
import sys
from concurrent.futures import ThreadPoolExecutor
from resource import RUSAGE_SELF, getrusage
from common.cpu_runtime import keep_freed_memory, share_arena
if sys.argv[1] == "shared":
    assert share_arena()
import torch  # starts threads itself
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
)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
def test_freed_pages_are_used_again() -> None:
    command = [sys.executable, "-c", PROGRAM]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    fresh, kept = map(int, output.split())
    assert fresh > 4 * 4_000_000 * 4 / 4096 / 2, "half of the pages of four tensors at least"
    assert kept < fresh / 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
def test_freed_pages_are_used_again_in_a_thread() -> None:
    own, shared = (faults_in_a_thread(arena) for arena in ("own", "shared"))
    assert shared < own / 5


def faults_in_a_thread(arena: str) -> int:
    command = [sys.executable, "-c", IN_A_THREAD, arena]
    return int(
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    )


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_passively_unless_the_user_chose_otherwise(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if before:
        monkeypatch.setenv("OMP_WAIT_POLICY", before)
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == after


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine of 64 cores, all allowed by affinity."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64))
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.max": "400000 100000"}, 4),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_quotas_of_both_control_group_versions_count(
    files: dict[str, str], cores: int, machine: pytest.MonkeyPatch
) -> None:
    held = {f"/sys/fs/cgroup/{name}": text for name, text in files.items()}
    machine.setattr(os.path, "exists", lambda path: str(path) in held)
    machine.setattr(context, "open", lambda path: io.StringIO(held[path]), raising=False)
    assert usable_cores() == cores


def test_affinity_counts(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(os, "sched_getaffinity", lambda _: {3, 9})
    machine.setattr(os.path, "exists", lambda _: False)
    assert usable_cores() == 2


def test_this_machine_has_a_core() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
