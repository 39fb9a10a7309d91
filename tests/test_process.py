"""A process that trains: memory that is freed is kept, threads wait without a fight."""

import os
import platform
import subprocess
import sys

import pytest

from trainables.process import wait_passively

PROGRAM = """
import resource
import torch
from trainables.process import keep_freed_memory

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the knobs")
def test_pages_are_kept() -> None:
    command = [sys.executable, "-c", PROGRAM]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    fresh, kept = map(int, told.split())
    assert fresh > 4 * 4_000_000 * 4 / 4096 / 2, "half of the pages of four tensors at least"
    assert kept < fresh / 20


@pytest.mark.parametrize(("given", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_passively_unless_told(
    monkeypatch: pytest.MonkeyPatch, given: str | None, found: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == found
