"""The peak memory of a training on the CPU."""

import numpy as np

from common.peak_memory import peak_memory_bytes, restart_peak_memory

MIB = 1 << 20


def test_a_peak_is_kept_and_that_of_an_earlier_training_is_forgotten() -> None:
    restart_peak_memory("cpu")
    before = peak_memory_bytes("cpu")
    large = np.ones(256 * MIB, dtype=np.uint8)
    during = peak_memory_bytes("cpu")
    assert during >= before + 200 * MIB
    del large
    # The kernel counts pages in batches, so its figure is inexact (proc(5)): 8 KiB less was seen.
    assert peak_memory_bytes("cpu") >= during - MIB
    restart_peak_memory("cpu")
    assert peak_memory_bytes("cpu") < during - 200 * MIB
