"""Freed memory is kept: a large tensor's pages are not fetched from the system every time."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from trainables.memory import keep_freed_memory

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
